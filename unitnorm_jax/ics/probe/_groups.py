"""Layers that are measured alike, together: one program for them, not one for each."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Block = tuple[jax.Array, jax.Array]


def in_groups(
    blocks: Sequence[Block],
    keys: Sequence[Hashable],
    of_group: Callable[[Any, list[Block]], Any],
) -> Any:
    """Measure blocks of one key together, and return what was found in the order of the layers.

    Args:
        blocks: Before and after, (k, n, d), each of k layers.
        keys: Of each block.
        of_group: From a key and its blocks to a tree of arrays (..., layers).
    """
    groups: dict[Any, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    results = [of_group(key, [blocks[i] for i in members]) for key, members in groups.items()]
    if len(results) == 1:
        return results[0]
    starts = np.cumsum([0, *(len(x) for x, _ in blocks)])
    order = [
        k for members in groups.values() for i in members for k in range(starts[i], starts[i + 1])
    ]
    place = np.argsort(order)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1)[..., place], *results)


def sides(blocks: Sequence[Block]) -> Block:
    """Return blocks of one shape as one, before and after."""
    before, after = zip(*blocks, strict=True)
    return joined(before), joined(after)


def joined(blocks: Sequence[jax.Array]) -> jax.Array:
    """`jnp.concatenate`, written once: XLA copies one into each operation that reads it."""
    return blocks[0] if len(blocks) == 1 else lax.optimization_barrier(jnp.concatenate(blocks))
