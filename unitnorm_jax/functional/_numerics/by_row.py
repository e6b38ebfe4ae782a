"""Unitized batch normalization of rows: dense inputs, and unit="position"."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.functional._numerics.batch_statistics import (
    Reduction,
    correct_variance,
    inverse_std,
    mean_and_variance,
)
from unitnorm_jax.functional._numerics.folded_sums import Fold, choose_fold, on_cpu
from unitnorm_jax.functional._numerics.layout import Layout
from unitnorm_jax.functional._numerics.norms import inverse_norm, known
from unitnorm_jax.functional._numerics.shifted_sums import shifted_sums

# Rows are reduced by matrix products; the default precision is bfloat16 on a TPU.
_dot = functools.partial(jnp.dot, precision=lax.Precision.HIGHEST)


def normalize_by_row(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    alpha: jax.Array,
    *,
    epsilon: jax.Array | float,
    reduction: Reduction,
    kappa: float,
    bessel_correction: bool,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | float]:
    """Normalize with batch statistics and unitize, where every row has a norm of its own.

    Per-(row, channel) moments would be as large as x, so the norms are a pass of their own, a
    weighted sum of ``(x - mean)^2`` over channels. With t per row, and u, w per channel::

        y = (t u + w) (x - mean) + bias

    Half precision is converted once, so that gradients add in float32, but x is what is kept.

    Args:
        x: input, (rows, channels).
        scale: (channels,), as bias and alpha; their dtype is that of the arithmetic.
        bias: see scale.
        alpha: see scale.
        epsilon: added to the variance and to the squared norm.
        reduction: how batch statistics are reduced.
        kappa: squared norm = kappa * sum over channels of xhat^2.
        bessel_correction: as ``unitized_batch_norm``.

    Returns:
        y (rows, channels) in scale's dtype, and the batch's mean, variance (channels,) and number
        of values.
    """
    count = reduction.values(x.shape[:1], alpha.dtype)
    both = x.astype(alpha.dtype), x
    layout, fold = Layout(x.shape, (), (1,)), choose_fold(x.shape, (0,), alpha.dtype)
    _, _, totals, shift, _ = shifted_sums(layout, reduction, fold, *both, None, count, epsilon)
    mean, var = mean_and_variance(totals, count, reduction)
    if bessel_correction:
        var = correct_variance(var, count, epsilon)
    inv_std = inverse_std(var, epsilon)
    centre = Centre(shift, mean)
    squared_norm = _squared_norms(both, centre, kappa * jnp.square(inv_std))
    t = inverse_norm(squared_norm, epsilon)
    slope = scale * inv_std
    u = slope * alpha
    y = _affine(both, centre, t, u, slope - u, bias, alpha)
    return y, centre.shift + mean, var, count


Both = tuple[jax.Array, jax.Array]
"""An input, (r, c): in the dtype of the arithmetic, and as it came, which is what is kept."""


class Centre(NamedTuple):
    """Where rows are centred, ``shift + mean``, as two terms: their sum would lose digits."""

    shift: jax.Array
    mean: jax.Array

    def remove(self, x: jax.Array) -> jax.Array:
        """``(x - shift) - mean``."""
        return (x.astype(self.mean.dtype) - self.shift[None]) - self.mean[None]


@jax.custom_jvp
def _squared_norms(both: Both, centre: Centre, weight: jax.Array) -> jax.Array:
    """``sum_c weight_c (x - centre_c)^2`` of every row, (r, c) -> (r,)."""

    def plain(both: Both, centre: Centre, weight: jax.Array) -> jax.Array:
        return _dot(jnp.square(centre.remove(both[0])), weight)

    def folded(fold: Fold, both: Both, centre: Centre, weight: jax.Array) -> jax.Array:
        parts = zip(fold.cut(centre.remove(both[1])), fold.cut(weight[None]), strict=True)
        return fold.sum([z * z * weight for z, weight in parts], (1,))

    fold = choose_fold(both[0].shape, (1,), both[0].dtype)
    return on_cpu(fold, folded, plain)(both, centre, weight)


@_squared_norms.defjvp
def _squared_norms_jvp(primals: Any, tangents: Any) -> Any:
    (_, x), centre, weight = primals

    def by_column(x: Any, centre: Centre, dslope: jax.Array, dweight: jax.Array) -> jax.Array:
        z = centre.remove(x)
        return (z * (dweight[None] * z - dslope[None])).sum(1)

    def by_column_folded(fold: Fold, x: Any, centre: Centre, dslope: Any, dweight: Any) -> Any:
        # Written such that its transpose, sums over rows, adds slabs.
        dslope, dweight = (fold.slab_of(v[None], x.shape) for v in (dslope, dweight))
        parts = [z * (dweight * z - dslope) for z in fold.cut(centre.remove(x))]
        return lax.concatenate(parts, fold.axis).sum(1)

    def linear(tangents: Any, x: Any, centre: Centre, weight: Any) -> jax.Array:
        (dx, _), dcentre, dweight = tangents
        add = on_cpu(choose_fold(x.shape, (0,), dx.dtype), by_column_folded, by_column)
        rest = add(x, centre, 2 * weight * dcentre.mean, dweight)
        return 2 * (weight[None] * centre.remove(x) * dx).sum(1) + rest

    tangent = jax.checkpoint(linear, prevent_cse=False)(tangents, x, centre, weight)
    return _squared_norms(*primals), tangent


def _outer(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """``rows.T @ columns``, (k, r), (k, c) -> (r, c); its transposes contract long axes."""
    contract = (((0,), (0,)), ((), ()))
    return lax.dot_general(rows, columns, contract, precision=lax.Precision.HIGHEST)


@jax.custom_jvp
def _affine(
    both: Both,
    centre: Centre,
    t: jax.Array,
    u: jax.Array,
    w: jax.Array,
    bias: jax.Array,
    alpha: jax.Array,
) -> jax.Array:
    """``(t u + w) (x - centre) + bias``, (r, c); where alpha, (c,), is 0, so is t u, whatever t."""
    slope = jnp.where(alpha[None] == 0, 0, t[:, None] * u[None]) + w[None]
    return slope * centre.remove(both[0]) + bias[None]


@_affine.defjvp
def _affine_jvp(primals: Any, tangents: Any) -> Any:
    (_, x), centre, t, u, w, *_ = primals
    t = known(t)

    def linear(tangents: Any, x: Any, centre: Centre, t: Any, u: Any, w: Any) -> jax.Array:
        # Products with [t, 1]: the transpose sums over rows once, as a matrix product.
        (dx, _), dcentre, dt, du, dw, dbias = tangents
        basis = functools.partial(_outer, jnp.stack([t, jnp.ones_like(t)]))
        z, dmean = centre.remove(x), dcentre.mean
        dslope = basis(jnp.stack([du, dw])) + _dot(dt[:, None], u[None])
        dy = (t[:, None] * u[None] + w[None]) * dx + dslope * z
        return dy + basis(jnp.stack([-u * dmean, dbias - w * dmean]))

    tangent = jax.checkpoint(linear, prevent_cse=False)(tangents[:-1], x, centre, t, u, w)
    return _affine(*primals), tangent
