"""Unitized batch normalization of samples that have positions, for GPUs.

The same as ``by_sample``, in as few and as full kernels as the compiler can be led to:

- A sum over the positions of a sample is one block's work, and samples are too few to fill a GPU.
  So each is cut into pieces, which are summed at once and added afterwards: without that the
  compiler sees reductions as too slow to fuse, and stores the gradient of the ReLU that comes next.
- Vectors of channels meet (n, c) matrices in one broadcast of a stack. Its transpose is one sum
  over samples of all that derivatives need (the six sums of ``_numerics``), so one kernel.
- Sums are taken again about the mean, where digits were lost, in a branch that returns one array,
  the centred sums, which otherwise are arithmetic of those about zero. They are totalled after the
  branch: a collective inside would keep it out of a CUDA graph, and have the host wait for it.

Everything else is automatic differentiation. x is all that is kept for the backward pass.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.functional._numerics.batch_statistics import (
    Reduction,
    correct_variance,
    digits_lost,
    inverse_std,
    plain_mean_and_variance,
    rounding_of,
    total_count,
)
from unitnorm_jax.functional._numerics.by_sample import Layout, typical_weight
from unitnorm_jax.functional._numerics.masked import stand_in
from unitnorm_jax.functional._numerics.norms import inverse_norm, mixed, squared_norms
from unitnorm_jax.functional._numerics.scaling import one_number


def normalize_by_piece(
    x: jax.Array,
    mask: jax.Array | None,
    scale: jax.Array,
    bias: jax.Array,
    alpha: jax.Array,
    *,
    epsilon: jax.Array | float,
    layout: Layout,
    reduction: Reduction,
    unit: str | float,
    bessel_correction: bool,
    dtype: Any,
    pieces: int,
    devices: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | float]:
    """Do as ``normalize_by_sample``, each sample's positions cut into ``pieces``.

    ``devices``: over how many jit may spread the samples.
    """
    shape, (samples, positions, channels) = x.shape, layout.counts
    cut = (samples, pieces, positions // pieces, channels)
    x, mask = x.reshape(cut), None if mask is None else mask.reshape(cut)
    number: Any = float(positions)
    if mask is not None:
        number = _add_pieces(mask.sum(2, dtype=alpha.dtype))
    count = None if mask is not None else reduction.values(layout.counts[:2], alpha.dtype)
    norm_epsilon = epsilon / typical_weight(unit, layout, alpha.dtype, masked=mask is not None)
    rest = mask, number, count, epsilon, norm_epsilon
    centred, shift = centred_sums(reduction, devices, x.astype(alpha.dtype), x, *rest)
    totals = add_samples(reduction, centred, mask, number)
    values = total_count(totals, count)
    mean, var = plain_mean_and_variance(totals, values, reduction)
    if bessel_correction:
        var = correct_variance(var, values, epsilon)
    inv_std = inverse_std(var, epsilon)

    slope = scale * inv_std
    u, v, b, m, r = to_samples(samples, slope, slope * alpha, bias, mean, inv_std)
    sum1, sum2 = centred
    squares = (sum2 * r) * r + ((number * m - 2 * sum1) * r) * (m * r)  # of (x - shift - m) r
    if not reduction.checked:
        squares += rounding_of(number * jnp.square(m * r))
    squared_norm = squared_norms(squares, number, unit)[:, None]
    inverse = inverse_norm(jnp.broadcast_to(squared_norm, (samples, channels)), epsilon)
    off = jnp.broadcast_to((alpha == 0)[None], (samples, channels))
    a = u + mixed(v, inverse, off)
    b = b - a * m
    if mask is not None:
        x = stand_in(x, mask, _spread(shift + mean), _spread(var), epsilon, dtype)
    y = _affine(x.astype(alpha.dtype), x, shift, a, b)
    return y.reshape(shape), shift + mean, var, totals[2] if count is None else count


def _spread(v: jax.Array) -> jax.Array:
    """Return (c,) or (n, c) values, to broadcast with the cut input."""
    return v[:, None, None] if v.ndim == 2 else v[None, None, None]


def _add_pieces(z: jax.Array) -> jax.Array:
    """Add sums of pieces, (..., k, c) -> (..., c); the barrier keeps both sums two kernels."""
    return lax.optimization_barrier(z).sum(-2)


def add_samples(
    reduction: Reduction, sums: jax.Array, mask: jax.Array | None, number: jax.Array | float
) -> jax.Array:
    """Return sums over samples and devices, (2, c); with a mask, also the numbers of values."""
    if mask is not None:
        sums = jnp.concatenate([sums, jnp.asarray(number)[None]])
    return reduction.psum(sums.sum(1))


def to_samples(samples: int, *vectors: jax.Array) -> list[jax.Array]:
    """Return each vector of channels, (c,), as a matrix, (n, c)."""
    stack = 0.5 * jnp.stack(vectors)
    number, channels = stack.shape
    return split_stack(jnp.broadcast_to(stack[:, None], (number, samples, channels)))


def split_stack(halves: jax.Array) -> list[jax.Array]:
    """Return the arrays of a stack of their halves.

    Were it of themselves, gradients of parameters would be slices of a sum, and each slice a copy.
    """
    return [2 * one[0] for one in lax.split(halves, (1,) * halves.shape[0], axis=0)]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def centred_sums(
    reduction: Reduction,
    devices: int,
    converted: jax.Array,
    x: jax.Array,
    mask: jax.Array | None,
    number: jax.Array | float,
    count: jax.Array | float | None,
    epsilon: jax.Array | float,
    norm_epsilon: jax.Array | float | None,
) -> tuple[jax.Array, jax.Array]:
    """Return the sums over positions of x - shift and its square, (2, n, c), and the shift, (c,).

    The shift is the mean of the batch to rounding, or 0 where sums are not checked. A custom
    derivative because no gradient flows through it, and the branch must not store a copy of x.
    """

    def sums(minus_shift: jax.Array | None) -> jax.Array:
        z = converted if minus_shift is None else converted + _spread(minus_shift)
        z = z if mask is None else jnp.where(mask, z, 0)
        parts = lax.optimization_barrier((z.sum(2), jnp.square(z).sum(2)))
        return lax.optimization_barrier(jnp.stack(parts).sum(2))

    about_zero = sums(None)
    if not reduction.checked:
        return about_zero, jnp.zeros(x.shape[-1], converted.dtype)
    totals = add_samples(reduction, about_zero, mask, number)
    values = total_count(totals, count)

    shift = one_number(totals[0] / values)
    if devices > 1 or reduction.axis_name is not None:
        # Five steps or more are a CUDA graph. Between two collectives there are four, and this.
        shift = lax.optimization_barrier(shift)

    def about_mean(shift: jax.Array, _: jax.Array) -> jax.Array:
        return sums(lax.optimization_barrier(-shift))

    def moved(shift: jax.Array, about_zero: jax.Array) -> jax.Array:
        mean, (sum1, sum2) = shift[None], about_zero
        return jnp.stack([sum1 - number * mean, sum2 - (2 * sum1 - number * mean) * mean])

    lost = digits_lost(shift, totals[1] / values, epsilon, reduction, norm_epsilon)
    return lax.cond(lost, about_mean, moved, shift, about_zero), shift


@centred_sums.defjvp
def _centred_sums_jvp(reduction: Reduction, devices: int, primals: Any, tangents: Any) -> Any:
    _, x, mask, *_ = primals
    centred, shift = centred_sums(reduction, devices, *primals)

    def linear(dx: jax.Array, x: jax.Array, shift: jax.Array) -> jax.Array:
        z = x.astype(dx.dtype) - _spread(shift)
        if mask is not None:
            z, dx = (jnp.where(mask, value, 0) for value in (z, dx))
        return jnp.stack([dx.sum((1, 2)), 2 * (z * dx).sum((1, 2))])

    dcentred = jax.checkpoint(linear, prevent_cse=False)(tangents[0], x, shift)
    return (centred, shift), (dcentred, jnp.zeros_like(shift))


@jax.custom_jvp
def _affine(
    converted: jax.Array, x: jax.Array, shift: jax.Array, a: jax.Array, b: jax.Array
) -> jax.Array:
    """Return ``a * (x - shift) + b``, whose derivative keeps x."""
    del x
    return _spread(a) * (converted - _spread(shift)) + _spread(b)


@_affine.defjvp
def _affine_jvp(primals: Any, tangents: Any) -> Any:
    _, x, shift, a, _ = primals
    dx, _, _, da, db = tangents

    def linear(dx: Any, da: Any, db: Any, x: Any, shift: Any, a: Any) -> jax.Array:
        # The transpose sums over the positions of each piece, and then over pieces.
        samples, pieces, _, channels = x.shape
        stack = jnp.stack([da, db])[:, :, None]
        stack = jnp.broadcast_to(stack, (2, samples, pieces, channels))
        parts = lax.optimization_barrier(lax.split(stack, (1, 1), axis=0))
        da, db = (part[0][:, :, None] for part in parts)
        z = x.astype(da.dtype) + _spread(lax.optimization_barrier(-shift))
        return _spread(a) * dx + da * z + db

    tangent = jax.checkpoint(linear, prevent_cse=False)(dx, da, db, x, shift, a)
    return _affine(*primals), tangent
