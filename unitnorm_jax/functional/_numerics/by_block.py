"""Unitized batch normalization of rows, for GPUs and TPUs: dense inputs, and unit="position".

The same as ``by_row``, in other words: the norms are sums over a row, not matrix products. On GPUs
column sums are taken over blocks of rows and then over blocks, one kernel for all that derivatives
need (see ``by_piece``). On TPUs each sum is an operation of its own: the compiler then takes it in
the matrix product that makes its input.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.functional._numerics.batch_statistics import (
    Reduction,
    correct_variance,
    inverse_std,
    plain_mean_and_variance,
)
from unitnorm_jax.functional._numerics.by_piece import Plan, centred_sums
from unitnorm_jax.functional._numerics.norms import inverse_norm, mixed


def normalize_by_block(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    alpha: jax.Array,
    *,
    epsilon: jax.Array | float,
    reduction: Reduction,
    kappa: float,
    bessel_correction: bool,
    blocks: int,
    devices: int,
    apart: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | float]:
    """Do as ``normalize_by_row``, the rows in ``blocks`` of equal size.

    ``devices``: over how many jit may spread the rows. ``apart``: each sum is an operation of its
    own over all rows, and devices add theirs within the branch, too: for TPUs.
    """
    rows, channels = x.shape
    size = rows // blocks
    count = reduction.values((rows,), alpha.dtype)
    converted, cut = x.astype(alpha.dtype), (blocks, 1, size, channels)
    both = converted.reshape(cut), x.reshape(cut)
    rest = None, float(size), count, epsilon, None
    alone = devices == 1 and reduction.axis_name is None
    plan = Plan(joined=not apart, in_branch=alone or apart, totals_only=True)
    _, totals, shift, minus_shift = centred_sums(reduction, plan, *both, *rest)
    mean, var = plain_mean_and_variance(totals, count, reduction)
    if bessel_correction:
        var = correct_variance(var, count, epsilon)
    inv_std = inverse_std(var, epsilon)
    slope = scale * inv_std
    vectors: tuple[jax.Array, ...] = slope, slope * alpha, bias, kappa * jnp.square(inv_std), mean
    if x.dtype != alpha.dtype:
        # The mean once more: sums without dy then stand alone, and those with dy all fit beside the
        # product that makes dy. (In float32 a TPU's compiler would store what they are sums of.)
        vectors += (mean,)
    u, v, b, weight, *means = (
        _to_rows(rows, vectors) if apart else _to_blocks(rows, blocks, vectors)
    )
    squared_norm = _keep(_squared_norms, x, shift, minus_shift, converted, means[-1], weight)
    inverse = inverse_norm(lax.optimization_barrier(squared_norm), epsilon)
    alpha = lax.stop_gradient(alpha)
    y = _keep(_output, x, shift, minus_shift, converted, means[0], inverse, u, v, b, alpha)
    return y, shift + mean, var, count


def _squared_norms(z: jax.Array, m: jax.Array, weight: jax.Array) -> jax.Array:
    z = z - m
    return (weight * z * z).sum(1)


def _output(z: Any, m: Any, inverse: Any, u: Any, v: Any, b: Any, alpha: Any) -> jax.Array:
    off = jnp.broadcast_to((alpha == 0)[None], z.shape)
    inverse = jnp.broadcast_to(inverse[:, None], z.shape)
    return (u + mixed(v, inverse, off)) * (z - m) + b


def _to_rows(rows: int, vectors: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Return each vector of channels, (c,), as a matrix, (r, c)."""
    return [jnp.broadcast_to(v[None], (rows, *v.shape)) for v in vectors]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _to_blocks(rows: int, blocks: int, vectors: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Do as ``_to_rows``; the transpose sums over the rows of each block, and then over blocks."""
    return _to_rows(rows, vectors)


@_to_blocks.defjvp
def _to_blocks_jvp(rows: int, blocks: int, primals: Any, tangents: Any) -> Any:
    (vectors,) = tangents
    even = (*vectors, *(jnp.zeros_like(v) for v in vectors[: len(vectors) % 2]))
    # Two sums over the same values are one of complex numbers.
    pairs = lax.complex(jnp.stack(even[::2]), jnp.stack(even[1::2]))
    number, channels = pairs.shape
    pairs = jnp.broadcast_to(pairs[:, None], (number, blocks, channels))
    pairs = lax.optimization_barrier(pairs)[:, :, None]
    pairs = jnp.broadcast_to(pairs, (number, blocks, rows // blocks, channels))
    each = lax.split(pairs.reshape(number, rows, channels), (1,) * number, axis=0)
    tangent = [part(pair[0]) for pair in each for part in (lax.real, lax.imag)][: len(vectors)]
    return _to_blocks(rows, blocks, *primals), tangent


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _keep(
    function: Callable[..., jax.Array],
    x: jax.Array,
    shift: jax.Array,
    minus_shift: jax.Array,
    converted: jax.Array,
    *rest: Any,
) -> jax.Array:
    """``function(converted - shift, ...)``, whose derivative keeps x, as it came."""
    del x, minus_shift
    return function(converted - shift[None], *rest)


@_keep.defjvp
def _keep_jvp(function: Callable[..., jax.Array], primals: Any, tangents: Any) -> Any:
    x, _, minus_shift, _, *rest = primals

    def linear(tangents: Any, x: jax.Array, minus_shift: jax.Array, rest: Any) -> jax.Array:
        z = x.astype(minus_shift.dtype) + minus_shift[None]
        return jax.jvp(function, (z, *rest), tuple(tangents))[1]

    tangent = jax.checkpoint(linear, prevent_cse=False)(tangents[3:], x, minus_shift, rest)
    return _keep(function, *primals), tangent
