"""Sums over long axes for CPUs: slabs are added elementwise, and only what is left is reduced.

XLA's CPU compiler hands a sum to a library, with the arithmetic before it. That is fast where a
stored array is summed, but the library runs products and conversions one operation at a time:
the sum of a product takes three times a plain one, and an input in half precision is stored in
float32 first. A loop compiled by XLA does both in one vectorized pass, but it is no reduction.
So k slabs of one of the axes are multiplied and added in a loop of this kind, and the
library sums the k times smaller array that comes out. Other compilers fuse sums well as they are.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# XLA evaluates an operand for at most 15 slabs in one loop; more streams than 8 are slower.
_MOST_SLABS = 8
_LEAST_SIZE = 2**16
# Contiguous values of a slab that is cut from rows: one vector.
_LEAST_WIDTH = 16


class Fold(NamedTuple):
    """How an array is cut: ``slabs`` equal parts of ``axis``."""

    axis: int
    slabs: int

    def cut(self, x: jax.Array) -> list[jax.Array]:
        """Return the slabs of x."""
        size = x.shape[self.axis] // self.slabs
        starts = range(0, x.shape[self.axis], size)
        return [lax.slice_in_dim(x, i, i + size, axis=self.axis) for i in starts]

    def slab_of(self, v: jax.Array, shape: Sequence[int]) -> jax.Array:
        """v, which broadcasts with ``shape``, broadcast to a slab of it."""
        shape = list(shape)
        shape[self.axis] //= self.slabs
        return keep_apart(jnp.broadcast_to(v, shape))

    def sum(self, slabs: Sequence[jax.Array], axes: tuple[int, ...]) -> jax.Array:
        """Return the sum over axes of the array whose slabs are given."""
        slabs = list(slabs)
        while len(slabs) > 1:
            pairs = [a + b for a, b in zip(slabs[::2], slabs[1::2], strict=False)]
            slabs = pairs + slabs[len(pairs) * 2 :]
        return keep_apart(slabs[0]).sum(axes)

    def moments(
        self,
        x: jax.Array,
        shift: jax.Array | None,
        axes: tuple[int, ...],
        dtype: jax.typing.DTypeLike,
    ) -> tuple[jax.Array, jax.Array]:
        """Return the sums over axes of ``x - shift`` and of its square, taken in ``dtype``."""
        parts = [part.astype(dtype) for part in self.cut(x)]
        if shift is not None:
            parts = [part - shift for part in parts]
        return self.sum(parts, axes), self.sum([part * part for part in parts], axes)


def choose_fold(
    shape: Sequence[Any], axes: Sequence[int], dtype: jax.typing.DTypeLike
) -> Fold | None:
    """Return the fold of the first axis that has one, or None where array or slabs are small."""
    if not all(isinstance(size, int) for size in shape):  # symbolic
        return None
    if math.prod(shape) < _LEAST_SIZE or jnp.dtype(dtype).itemsize < 4:
        return None
    for axis in axes:
        width = _LEAST_WIDTH if axis == len(shape) - 1 else 1
        for slabs in range(_MOST_SLABS, 2, -1):
            if shape[axis] % slabs == 0 and shape[axis] // slabs >= width:
                return Fold(axis, slabs)
    return None


def on_cpu(
    fold: Fold | None, folded: Callable[..., Any], plain: Callable[..., Any]
) -> Callable[..., Any]:
    """``folded(fold, ...)`` on CPUs, if there is a fold; ``plain(...)`` elsewhere."""
    if fold is None:
        return plain
    cpu = functools.partial(folded, fold)
    return functools.partial(lax.platform_dependent, cpu=cpu, default=plain)


def keep_apart(v: jax.Array) -> jax.Array:
    """Return v itself; in the compiled program a reduction of v does not absorb what computes v.

    The library knows no complex numbers. (A barrier alone is gone by the time it is chosen.)
    Linear, and its own transpose.
    """
    return lax.real(lax.optimization_barrier(lax.complex(v, jnp.zeros_like(v))))
