"""Several seeds of one method in one program, so that small networks fill an accelerator."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def stack(trees: Sequence[Any]) -> Any:
    """Return trees of arrays as one, along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: Any) -> list[Any]:
    """Undo ``stack``; what was spread over devices comes together on the first of them."""
    first = jax.tree.leaves(tree)[0]
    count = len(first)
    if isinstance(first, jax.Array) and len(first.devices()) > 1:
        tree = jax.device_put(tree, min(first.devices(), key=lambda device: device.id))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(count)]


def spread_over_devices(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Place the seeds of a stack on different devices, as many on each.

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
