"""Sums and means over the devices of a mapped axis, or over groups of them of any sizes."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Groups = tuple[tuple[int, ...], ...] | None


class UnboundAxisError(ValueError, NameError):
    """A mapped axis that no transformation around the call maps; JAX raises ``NameError`` alone."""


def check_bound(axis_name: Any) -> None:
    """Raise unless the call is mapped over the axis of that name (or the axes of a tuple)."""
    try:
        lax.axis_size(axis_name)
    except NameError as error:
        raise UnboundAxisError(
            f"`axis_name` (={axis_name!r}) must be the axis name of a transformation around the "
            "call, but none maps it here. Map the training step with jax.pmap, jax.shard_map or "
            f"jax.vmap(..., axis_name={axis_name!r}), or leave `axis_name` out: under jit with "
            "shardings statistics are those of the global batch without it, and running averages "
            f"need none. JAX says: {error}"
        ) from None


def total(x: Any, axis_name: str | None, groups: Groups) -> Any:
    """Return the sum over the devices of an axis, or of each group."""
    if axis_name is None:
        return x
    check_bound(axis_name)
    return lax.psum(x, axis_name, axis_index_groups=groups)


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
    check_bound(axis_name)
    return lax.psum(1, axis_name) if groups is None else min(len(group) for group in groups)
