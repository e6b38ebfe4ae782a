"""Several seeds of one method in one program, so that small networks fill an accelerator."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.build import Program


def together(program: Program) -> Program:
    """Returns ``program`` for a stack of states, one per seed, along the first axis.

    ``init`` takes one key per seed and the images of one batch, ``train_step`` one batch per seed,
    ``eval_step`` one batch for all. Seeds share nothing: each has its own weights, statistics,
    batches and random key, as when it is trained alone.

    Args:
        program: Of one seed; not compiled.
    """
    return program._replace(
        init=jax.jit(jax.vmap(program.init, in_axes=(0, None))),
        train_step=jax.jit(jax.vmap(program.train_step), donate_argnums=0),
        eval_step=jax.jit(jax.vmap(program.eval_step, in_axes=(0, None))),
    )


def stack(trees: Sequence[Any]) -> Any:
    """Returns trees of arrays as one, along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: Any) -> list[Any]:
    """Undoes ``stack``."""
    count = len(jax.tree.leaves(tree)[0])
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


def spread_over_devices(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Places the seeds of a stack on different devices, as many on each.

    Args:
        tree: A stack.
        devices: Where to; default: as many of all devices as divide the number of seeds.
    """
    count = len(jax.tree.leaves(tree)[0])
    found = list(devices or jax.devices())
    used = max(n for n in range(1, len(found) + 1) if count % n == 0)
    mesh = jax.sharding.Mesh(np.array(found[:used]), ("seed",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("seed"))
    return jax.device_put(tree, sharding)
