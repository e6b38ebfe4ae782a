"""What is restored, of every kind of network, and on which devices it is put."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.config.experiment import ModelConfig, TrainConfig
from experiments.data import load_dataset
from experiments.training import checkpoint
from experiments.training.checkpoint import Checkpoint, Checkpoints
from experiments.training.probing import RunProbe
from experiments.training.program import build_program
from experiments.training.steps import TrainState
from tests.experiments.training.checkpoint.states import assert_equal, make_state, save_all


@pytest.mark.parametrize("norm", ["none", "gn", "bcn-micro", "normprop", "gn+ws", "none+wn"])
def test_the_state_of_every_kind_of_network(tmp_path, norm):
    """Some have no running statistics, or parameters elsewhere; the probe's snapshot has, too."""
    config = TrainConfig(model=ModelConfig(blocks=(1,), widths=(16,)))
    dataset = load_dataset("digits")
    program = build_program(config, norm, dataset)
    shapes = jax.eval_shape(program.init, jax.random.key(0), dataset.example(64)["image"])
    rng = np.random.default_rng(0)

    def fill(leaf):
        return jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype)

    own = {"key": jax.random.key(3), "step": jnp.asarray(5)}
    state = jax.tree.map(fill, shapes.replace(key=np.zeros((), np.float32))).replace(**own)
    arrays = RunProbe.templates(state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(Checkpoint(state, arrays=arrays))
    found = checkpoint.restore(tmp_path, state, arrays=arrays)
    assert_equal(found.state, state)
    jax.tree.map(np.testing.assert_array_equal, found.arrays, arrays)
    assert jax.tree.structure(found.arrays) == jax.tree.structure(arrays)


def test_arrays_are_as_free_to_move_as_before(tmp_path):
    """Committed to a device, they would have every function compiled again that takes others."""
    save_all(tmp_path, 3)
    kernel = checkpoint.restore(tmp_path, make_state()).state.params["dense"]["kernel"]
    assert not kernel.committed


@pytest.mark.parametrize(("before", "after"), [(1, 8), (8, 1), (8, 4)])
def test_another_number_of_devices(tmp_path, before, after):
    """Arrays, and where they are: those of the template, though others saved them."""

    def put(state: TrainState, count: int) -> TrainState:
        mesh = jax.make_mesh((count,), ("i",), (AxisType.Auto,), devices=jax.devices()[:count])
        replicated, rows = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((), ("i",)))
        state = jax.device_put(state, replicated)
        # One array in parts, as nothing here has it, but a larger model might.
        params = {"dense": {**state.params["dense"]}}
        params["dense"]["kernel"] = jax.device_put(params["dense"]["kernel"], rows)
        return state.replace(params=params)

    saved = put(make_state(5), before)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(Checkpoint(saved))
    template = put(make_state(0), after)
    found = checkpoint.restore(tmp_path, template).state
    assert_equal(found, saved)
    shardings = [jax.tree.map(lambda x: x.sharding, s.params) for s in (found, template)]
    assert shardings[0] == shardings[1]
    assert len(found.params["dense"]["kernel"].addressable_shards) == after
