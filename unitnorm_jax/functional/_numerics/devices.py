"""Sums and means over the devices of a mapped axis, or over groups of them of any sizes."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Groups = tuple[tuple[int, ...], ...] | None


def total(x: Any, axis_name: str | None, groups: Groups) -> Any:
    """Return the sum over the devices of an axis, or of each group."""
    return x if axis_name is None else lax.psum(x, axis_name, axis_index_groups=groups)


def number(axis_name: str | None, groups: Groups) -> Any:
    """Return how many devices that is: a number, or an array where groups differ in size."""
    if groups is None or len({len(group) for group in groups}) == 1:
        return total(1, axis_name, groups)
    size = {index: len(group) for group in groups for index in group}
    sizes = jnp.asarray([size[index] for index in sorted(size)], jnp.float32)
    return sizes[lax.axis_index(axis_name)]


def average(x: jax.Array, axis_name: str | None, groups: Groups) -> jax.Array:
    """Mean over the devices of an axis, or of each group; ``lax.pmean`` takes all for as large."""
    return total(x, axis_name, groups) / number(axis_name, groups)


def fewest(axis_name: str, groups: Groups) -> int:
    """Return the number of devices of an axis, or of its smallest group."""
    return lax.psum(1, axis_name) if groups is None else min(len(group) for group in groups)
