"""Unitized batch normalization of samples that have positions, and of masked inputs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.functional._batch_statistics import (
    Reduction,
    correct_variance,
    exact_sums,
    mean_and_variance,
    total_count,
)


def normalize_by_sample(
    x: jax.Array,
    mask: jax.Array | None,
    scale: jax.Array,
    bias: jax.Array,
    alpha: jax.Array,
    *,
    reduction: Reduction,
    unit: str | float,
    bessel_correction: bool,
    dtype: Any,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | float]:
    """Normalize with batch statistics and unitize, by one affine map per (sample, channel).

    Args:
      x: input, (samples, positions, channels).
      mask: None, or True where a value takes part, of x's shape; x must be finite everywhere.
      scale: (channels,), as bias and alpha; their dtype is that of the arithmetic.
      bias: see scale.
      alpha: see scale.
      reduction: how batch statistics are reduced.
      unit: as ``unitized_batch_norm``; "position" is the same as one position per sample.
      bessel_correction: as ``unitized_batch_norm``.
      dtype: dtype of the result.

    Returns:
      y (samples, positions, channels), and the batch's mean, variance (channels,) and number of
      values: one number or, with a mask, (channels,).
    """
    epsilon = reduction.epsilon
    (sum1, sum2, number), totals, shift, minus_shift = _moments(reduction, alpha.dtype, x, mask)
    count = None if mask is not None else _static_count(x, reduction)
    count_or_one = total_count(totals, count)
    mean, var = mean_and_variance(totals, count_or_one)
    if bessel_correction:
        var = correct_variance(var, count_or_one, epsilon)
    inv_std = lax.rsqrt(var + epsilon)
    # The sum over positions of (x - mean)^2, (n, c).
    squares = sum2 - 2 * mean[None] * sum1 + number * jnp.square(mean)[None]
    weighted = squares * unit_weight(unit, number, x.shape[-1]) * jnp.square(inv_std)[None]
    squared_norm = weighted.sum(1)  # (n, c) -> (n,)
    squared_norm = jnp.where(squared_norm > 0, squared_norm, 0)  # clips roundoff
    inv_norm = lax.rsqrt(squared_norm + epsilon)
    a = (scale * inv_std)[None] * (1 + alpha[None] * (inv_norm - 1)[:, None])
    b = bias[None] - a * mean[None]
    a, b = lax.optimization_barrier((a, b))
    y = _affine(dtype, x, shift, minus_shift, a, b)
    return y, shift + mean, var, totals[2] if count is None else count


def _static_count(x: jax.Array, reduction: Reduction) -> float:
    return float(x.shape[0] * x.shape[1] * reduction.psum(1))


def unit_weight(unit: str | float, number: jax.Array | float, channels: int) -> Any:
    """What multiplies a channel's sum of squares over positions in the squared norm."""
    # A channel without positions has a sum of squares of 0: any weight will do.
    some = number if isinstance(number, float) else jnp.maximum(number, 1)
    if unit == "reference":
        return 1 / (some * some)
    if unit == "rms":
        return 1 / (some * channels)
    if isinstance(unit, float):
        return unit / some
    return 1.0


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _moments(reduction: Reduction, dtype: Any, x: jax.Array, mask: jax.Array | None) -> Any:
    """Sums over positions, their totals over the batch, and the shift they are about.

    A custom derivative because no gradient flows through the shift, the branch that may choose
    it must not store a copy of x, and x is all that is kept for the backward pass.
    """
    number: Any = float(x.shape[1]) if mask is None else mask.sum(1, dtype=dtype)

    def sums(shift: jax.Array | None) -> Any:
        z = x.astype(dtype) if shift is None else x.astype(dtype) - shift[None, None]
        z = z if mask is None else jnp.where(mask, z, 0)
        # The barrier keeps XLA from making the totals second reductions over all of x.
        sum1, sum2 = lax.optimization_barrier((z.sum(1), jnp.square(z).sum(1)))
        parts = (sum1, sum2) if mask is None else (sum1, sum2, number)
        return (sum1, sum2), reduction.psum(jnp.stack([part.sum(0) for part in parts]))

    count = None if mask is not None else _static_count(x, reduction)
    (sum1, sum2), totals, shift, minus_shift = exact_sums(sums, count, reduction)
    return (sum1, sum2, number), totals, shift, minus_shift


@_moments.defjvp
def _moments_jvp(reduction: Reduction, dtype: Any, primals: Any, tangents: Any) -> Any:
    x, mask = primals
    out = _moments(reduction, dtype, x, mask)
    (_, _, number), _, shift, _ = out

    def linear(dx: jax.Array, x: jax.Array, shift: jax.Array) -> Any:
        dx = dx.astype(dtype) if mask is None else jnp.where(mask, dx.astype(dtype), 0)
        z = x.astype(dtype) - shift[None, None]
        return lax.optimization_barrier((dx.sum(1), 2 * (z * dx).sum(1)))

    dsum1, dsum2 = jax.checkpoint(linear, prevent_cse=False)(tangents[0], x, shift)
    dparts = [dsum1.sum(0), dsum2.sum(0)]
    if mask is not None:
        dparts.append(jnp.zeros_like(dparts[0]))
    dnumber, dshift = jax.tree.map(jnp.zeros_like, (number, shift))
    return out, ((dsum1, dsum2, dnumber), reduction.psum(jnp.stack(dparts)), dshift, dshift)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _affine(
    dtype: Any, x: jax.Array, shift: jax.Array, minus_shift: jax.Array, a: jax.Array, b: jax.Array
) -> jax.Array:
    """``a * (x - shift) + b``; the derivative keeps x, not x - shift, and reads ``minus_shift``."""
    del minus_shift
    return (a[:, None] * (x.astype(a.dtype) - shift[None, None]) + b[:, None]).astype(dtype)


@_affine.defjvp
def _affine_jvp(dtype: Any, primals: Any, tangents: Any) -> Any:
    x, _, minus_shift, a, _ = primals
    dx, _, _, da, db = tangents

    def linear(dx: Any, da: Any, db: Any, x: Any, minus_shift: Any, a: Any) -> jax.Array:
        z = x.astype(a.dtype) + minus_shift[None, None]
        return (a[:, None] * dx.astype(a.dtype) + da[:, None] * z + db[:, None]).astype(dtype)

    tangent = jax.checkpoint(linear, prevent_cse=False)(dx, da, db, x, minus_shift, a)
    return _affine(dtype, *primals), tangent
