"""Small states, saved, and compared bit by bit."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.training import checkpoint
from experiments.training.checkpoint import Checkpoint, Checkpoints
from experiments.training.steps import TrainState

# Large enough for files of their own: orbax checks the smallest ones itself.
SHAPE = (64, 128)


def make_state(step: int = 0, **changes) -> TrainState:
    kernel = jnp.asarray(np.random.default_rng(step).normal(size=SHAPE), jnp.float32)
    state = TrainState.create(
        apply_fn=None,
        params={"dense": {"kernel": kernel, "bias": kernel[0].astype(jnp.bfloat16)}},
        tx=optax.sgd(0.1, momentum=0.9),
        batch_stats={"norm": {"mean": 2 * kernel[1]}},
        key=jax.random.key(step),
    )
    return state.replace(step=jnp.asarray(step), **changes)


def save_all(folder: Path, *steps: int, accuracies=(), **options) -> None:
    with Checkpoints(folder, **options) as checkpoints:
        for i, step in enumerate(steps):
            accuracy = accuracies[i] if accuracies else None
            content = Checkpoint(make_state(step), data={"batch": step}, accuracy=accuracy)
            assert checkpoints.save(content)


def assert_equal(one: TrainState, other: TrainState) -> None:
    arrays = [checkpoint.state_arrays(state) for state in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *arrays)
    assert checkpoint.checksums(arrays[0]) == checkpoint.checksums(arrays[1])
