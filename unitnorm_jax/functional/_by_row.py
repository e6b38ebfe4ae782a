"""Unitized batch normalization of rows: dense inputs, and unit="position"."""

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
)

# Rows are reduced by matrix products; the default precision is bfloat16 on a TPU.
_dot = functools.partial(jnp.dot, precision=lax.Precision.HIGHEST)


def normalize_by_row(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    alpha: jax.Array,
    *,
    reduction: Reduction,
    kappa: float,
    bessel_correction: bool,
    dtype: Any,
) -> tuple[jax.Array, jax.Array, jax.Array, float]:
    """Normalize with batch statistics and unitize, where every row has a norm of its own.

    Per-(row, channel) moments would be as large as x, so the norm is a matrix product instead:
    ``y = (t u + w) (x - mean) + bias`` with t per row, and u, w per channel.

    Args:
      x: input, (rows, channels).
      scale: (channels,), as bias and alpha; their dtype is that of the arithmetic.
      bias: see scale.
      alpha: see scale.
      reduction: how batch statistics are reduced.
      kappa: squared norm = kappa * sum over channels of xhat^2.
      bessel_correction: as ``unitized_batch_norm``.
      dtype: dtype of the result.

    Returns:
      y (rows, channels), and the batch's mean, variance (channels,) and number of values.
    """
    epsilon = reduction.epsilon
    count = float(x.shape[0] * reduction.psum(1))
    x, totals, shift = _recenter(reduction, count, alpha.dtype, x)
    mean, var = mean_and_variance(totals, count)
    if bessel_correction:
        var = correct_variance(var, count, epsilon)
    inv_std = lax.rsqrt(var + epsilon)
    squared_norm = _squared_norms(x, mean, kappa * jnp.square(inv_std))
    t = lax.rsqrt(squared_norm + epsilon)
    slope = scale * inv_std
    u = slope * alpha
    y = _affine(dtype, x, mean, t, u, slope - u, bias)
    return y, shift + mean, var, count


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _recenter(reduction: Reduction, count: float, dtype: Any, x: jax.Array) -> Any:
    """``x - shift``, its totals over the batch and the shift (zero but where digits were lost).

    A custom derivative because no gradient flows through the shift.
    """

    def sums(shift: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        z = x.astype(dtype) if shift is None else x.astype(dtype) - shift[None]
        totals = reduction.psum(jnp.stack([z.sum(0), jnp.square(z).sum(0)]))
        return z if reduction.guarded or reduction.two_pass else x, totals

    z, totals, shift, _ = exact_sums(sums, count, reduction)
    return z, totals, shift


@_recenter.defjvp
def _recenter_jvp(
    reduction: Reduction, count: float, dtype: Any, primals: Any, tangents: Any
) -> Any:
    z, totals, shift = _recenter(reduction, count, dtype, *primals)
    (dx,) = tangents

    def linear(dx: jax.Array, z: jax.Array) -> jax.Array:
        dx = dx.astype(dtype)
        return jnp.stack([dx.sum(0), 2 * (z.astype(dtype) * dx).sum(0)])

    dtotals = reduction.psum(jax.checkpoint(linear, prevent_cse=False)(dx, z))
    return (z, totals, shift), (dx.astype(z.dtype), dtotals, jnp.zeros_like(shift))


@jax.custom_jvp
def _squared_norms(x: jax.Array, mean: jax.Array, weight: jax.Array) -> jax.Array:
    """``sum_c weight_c (x - mean_c)^2`` of every row, (r, c) -> (r,)."""
    return _dot(jnp.square(x.astype(mean.dtype) - mean[None]), weight)


@_squared_norms.defjvp
def _squared_norms_jvp(primals: Any, tangents: Any) -> Any:
    def linear(dx: Any, dmean: Any, dweight: Any, x: Any, mean: Any, weight: Any) -> jax.Array:
        x = x.astype(mean.dtype)
        z = x - mean[None]
        by_mean = _dot(x, weight * dmean) - jnp.sum(mean * weight * dmean)
        by_x = (weight[None] * z * dx.astype(mean.dtype)).sum(1)
        return _dot(jnp.square(z), dweight) + 2 * (by_x - by_mean)

    tangent = jax.checkpoint(linear, prevent_cse=False)(*tangents, *primals)
    return _squared_norms(*primals), tangent


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _affine(
    dtype: Any,
    x: jax.Array,
    mean: jax.Array,
    t: jax.Array,
    u: jax.Array,
    w: jax.Array,
    bias: jax.Array,
) -> jax.Array:
    """``(t u + w) (x - mean) + bias``, (r, c)."""
    slope = t[:, None] * u[None] + w[None]
    return (slope * (x.astype(mean.dtype) - mean[None]) + bias[None]).astype(dtype)


@_affine.defjvp
def _affine_jvp(dtype: Any, primals: Any, tangents: Any) -> Any:
    x, mean, t, u, w, _ = primals

    def linear(tangents: Any, x: Any, mean: Any, t: Any, u: Any, w: Any) -> jax.Array:
        # Products with [t, 1]: the transpose sums over rows once, as a matrix product.
        dx, dmean, dt, du, dw, dbias = tangents
        basis = jnp.stack([t, jnp.ones_like(t)], 1)
        dslope = _dot(basis, jnp.stack([du, dw])) + _dot(dt[:, None], u[None])
        dy = (t[:, None] * u[None] + w[None]) * dx.astype(mean.dtype)
        dy = dy + dslope * (x.astype(mean.dtype) - mean[None])
        return (dy + _dot(basis, jnp.stack([-u * dmean, dbias - w * dmean]))).astype(dtype)

    tangent = jax.checkpoint(linear, prevent_cse=False)(tangents, x, mean, t, u, w)
    return _affine(dtype, *primals), tangent
