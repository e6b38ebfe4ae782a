"""Unitized batch normalization of samples that have positions, and of masked inputs."""

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
    mean_and_variance,
    number_of,
    rounding_of,
)
from unitnorm_jax.functional._numerics.folded_sums import Fold, choose_fold, on_cpu
from unitnorm_jax.functional._numerics.layout import Layout
from unitnorm_jax.functional._numerics.masked import stand_in
from unitnorm_jax.functional._numerics.norms import inverse_norm, mixed, squared_norms, unit_weight
from unitnorm_jax.functional._numerics.shifted_sums import shifted_sums, total_count


def normalize_by_sample(
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
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | float]:
    """Normalize with batch statistics and unitize, by one affine map per (sample, channel).

    Half precision is converted once, so that gradients add in float32, but x is what is kept.

    Args:
        x: input.
        mask: None, or True where a value takes part, of x's shape.
        scale: (channels,), as bias and alpha; their dtype is that of the arithmetic.
        bias: see scale.
        alpha: see scale.
        epsilon: added to the variance and to the squared norm.
        layout: the axes of x.
        reduction: how batch statistics are reduced.
        unit: as ``unitized_batch_norm``; "position" is the same as one position per sample.
        bessel_correction: as ``unitized_batch_norm``.
        dtype: dtype that y will be converted to.

    Returns:
        y, of x's shape and scale's dtype, and the batch's mean, variance (channels,) and number of
        values: one number or, with a mask, (channels,).
    """
    converted = x.astype(alpha.dtype)
    count = None if mask is not None else reduction.values(layout.counts[:2], alpha.dtype)
    fold = None
    if mask is None and x.dtype != alpha.dtype:
        # Plain sums would have the converted input stored first.
        fold = choose_fold(x.shape, layout.positions, alpha.dtype)
    typical = typical_weight(unit, layout, alpha.dtype, masked=mask is not None)
    (sum1, sum2), number, totals, shift, minus_shift = shifted_sums(
        layout, reduction, fold, converted, x, mask, count, epsilon, epsilon / typical
    )
    count_or_one = total_count(totals, count)
    mean, var = mean_and_variance(totals, count_or_one, reduction)
    if bessel_correction:
        var = correct_variance(var, count_or_one, epsilon)
    inv_std = inverse_std(var, epsilon)
    # The sum over positions of (x - mean)^2, (n, c).
    squares = sum2 - 2 * mean[None] * sum1 + number * jnp.square(mean)[None]
    if not reduction.checked:  # of sums about zero
        squares += rounding_of(number * jnp.square(mean)[None])
    # The square of an inverse deviation alone may underflow.
    squares = (squares * inv_std[None]) * inv_std[None]
    inverse = inverse_norm(squared_norms(squares, number, unit), epsilon)
    a = (scale * inv_std)[None] * (1 + mixed(alpha[None], inverse[:, None], (alpha == 0)[None]))
    b = bias[None] - a * mean[None]
    a, b = lax.optimization_barrier((a, b))
    if mask is not None:
        centre = layout.spread(shift + mean), layout.spread(var)
        x = stand_in(x, mask, *centre, epsilon, dtype)
        converted = x.astype(alpha.dtype)
    y = affine(layout, _add, converted, x, shift, minus_shift, a, b)
    return y, shift + mean, var, totals[2] if count is None else count


def normalize_with_statistics(
    x: jax.Array,
    mask: jax.Array | None,
    scale: jax.Array,
    bias: jax.Array,
    alpha: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    *,
    epsilon: jax.Array | float,
    layout: Layout,
    unit: str | float,
    dtype: Any,
) -> jax.Array:
    """Inference: ``normalize_by_sample`` with given mean and variance, (channels,)."""
    _, positions, _ = layout.counts
    x = stand_in(x, mask, layout.spread(mean), layout.spread(var), epsilon, dtype)
    z = x.astype(mean.dtype) - layout.spread(mean)
    valid: jax.Array = z
    number: jax.Array | float = number_of(positions, mean.dtype)
    if mask is not None:
        valid, number = jnp.where(mask, z, 0), layout.over_positions(mask, dtype=mean.dtype)
    inv_std = lax.rsqrt(var + epsilon)
    squares = layout.over_positions(jnp.square(valid))
    # The square of an inverse deviation alone may underflow.
    squares = (squares * inv_std[None]) * inv_std[None]
    inverse = inverse_norm(squared_norms(squares, number, unit), epsilon)
    a = (scale * inv_std)[None] * (1 + mixed(alpha[None], inverse[:, None], (alpha == 0)[None]))
    return layout.spread(a) * z + layout.spread(bias)


def typical_weight(unit: str | float, layout: Layout, dtype: Any, masked: bool) -> Any:
    """Return kappa P, what multiplies a channel's mean square in the squared norm of a sample."""
    _, positions, channels = layout.counts
    some = number_of(positions, dtype)
    if masked and unit == "reference":
        return 1.0  # 1 / P, of a sample with a single valid position
    return some * unit_weight(unit, some, channels)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def affine(
    layout: Layout,
    add: Callable[..., jax.Array],
    converted: jax.Array,
    x: jax.Array,
    shift: jax.Array,
    minus_shift: jax.Array,
    a: jax.Array,
    b: jax.Array,
) -> jax.Array:
    """Return ``a * (x - shift) + b``, whose derivative keeps x and reads ``minus_shift``.

    ``add(layout, da, db, x, minus_shift)``: the derivative with respect to a and b, ``da (x +
    minus_shift) + db``, in words whose transpose is how gradients are to be summed.
    """
    del add, x, minus_shift
    return layout.spread(a) * (converted - layout.spread(shift)) + layout.spread(b)


@affine.defjvp
def _affine_jvp(layout: Layout, add: Callable[..., jax.Array], primals: Any, tangents: Any) -> Any:
    _, x, _, minus_shift, a, _ = primals
    dx, _, _, _, da, db = tangents

    def linear(dx: Any, da: Any, db: Any, x: Any, minus_shift: Any, a: Any) -> jax.Array:
        return layout.spread(a) * dx + add(layout, da, db, x, minus_shift)

    tangent = jax.checkpoint(linear, prevent_cse=False)(dx, da, db, x, minus_shift, a)
    return affine(layout, add, *primals), tangent


def _add(
    layout: Layout, da: jax.Array, db: jax.Array, x: jax.Array, minus_shift: jax.Array
) -> jax.Array:
    fold = choose_fold(x.shape, layout.positions, da.dtype)
    forms = functools.partial(_map_folded, layout), functools.partial(_map, layout)
    return on_cpu(fold, *forms)(da, db, x, minus_shift)


def _map(
    layout: Layout, da: jax.Array, db: jax.Array, x: jax.Array, minus_shift: jax.Array
) -> jax.Array:
    """``da (x + minus_shift) + db``: its transpose sums over positions."""
    z = x.astype(da.dtype) + layout.spread(minus_shift)
    return layout.spread(da) * z + layout.spread(db)


def _map_folded(
    layout: Layout, fold: Fold, da: jax.Array, db: jax.Array, x: jax.Array, minus_shift: jax.Array
) -> jax.Array:
    """``_map`` written such that its transpose adds slabs."""
    less = layout.spread(minus_shift)
    slope = fold.slab_of(layout.spread(da), x.shape)
    parts = [slope * (part.astype(da.dtype) + less) for part in fold.cut(x)]
    if x.dtype == da.dtype:
        return lax.concatenate(parts, fold.axis) + layout.spread(db)
    offset = fold.slab_of(layout.spread(db), x.shape)
    return lax.concatenate([part + offset for part in parts], fold.axis)
