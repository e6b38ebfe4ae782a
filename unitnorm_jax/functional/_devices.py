"""Sums and means over the devices of a mapped axis, or over groups of them of any sizes."""

import jax
import jax.numpy as jnp
from jax import lax

Groups = tuple[tuple[int, ...], ...] | None


def total(x: jax.Array, axis_name: str | None, groups: Groups) -> jax.Array:
    """Sum over the devices of an axis, or of each group."""
    return x if axis_name is None else lax.psum(x, axis_name, axis_index_groups=groups)


def average(x: jax.Array, axis_name: str | None, groups: Groups) -> jax.Array:
    """Mean over the devices of an axis, or of each group; ``lax.pmean`` takes all for as large."""
    if axis_name is None:
        return x
    if groups is None or len({len(group) for group in groups}) == 1:
        return lax.pmean(x, axis_name, axis_index_groups=groups)
    number = total(jnp.ones((), x.dtype), axis_name, groups)
    return total(x, axis_name, groups) / number


def fewest(axis_name: str, groups: Groups) -> int:
    """Number of devices of an axis, or of its smallest group."""
    return lax.psum(1, axis_name) if groups is None else min(len(group) for group in groups)
