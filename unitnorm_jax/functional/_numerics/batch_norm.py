"""Plain batch normalization, the half that other methods share: one pass, one collective."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.functional._numerics import arguments
from unitnorm_jax.functional._numerics.axes import check_axis
from unitnorm_jax.functional._numerics.batch_statistics import (
    BatchStats,
    Reduction,
    inverse_std,
    mean_and_variance,
)
from unitnorm_jax.functional._numerics.layout import Layout
from unitnorm_jax.functional._numerics.masked import stand_in
from unitnorm_jax.functional._numerics.shifted_sums import shifted_sums, total_count


class ChannelArguments(NamedTuple):
    """Checked arguments of a normalization with one feature axis.

    Attributes:
        x: the input, floating.
        mask: None, or booleans of x's shape.
        axis: the feature axis, counted from 0.
        affine: scale and bias, (channels,) each, in the dtype of the arithmetic.
        result_dtype: dtype of the result.
        compute_dtype: dtype of the arithmetic.
    """

    x: jax.Array
    mask: jax.Array | None
    axis: int
    affine: tuple[jax.Array, jax.Array]
    result_dtype: Any
    compute_dtype: Any


def channel_arguments(
    x: jax.Array,
    stats: BatchStats,
    scale: jax.Array | None,
    bias: jax.Array | None,
    axis: int,
    mask: jax.Array | None,
    dtype: Any,
    sample_axis: int | None = None,
    empty: bool = False,
) -> ChannelArguments:
    """Check what the normalizations with one feature axis share; ``empty``: x may be."""
    x = jnp.asarray(x)
    feature = check_axis(x.shape, axis, sample_axis)
    shape = (x.shape[feature],)
    given = {"mean": stats.mean, "var": stats.var, "scale": scale, "bias": bias}
    for name, value in given.items():
        if value is not None:
            arguments.check_features(name, value, shape)
    result_dtype, compute_dtype = arguments.resolve_dtypes(x, (scale, bias), dtype)
    x = arguments.as_floating(x, empty)
    if mask is not None:
        mask = arguments.check_mask(mask, x.shape)

    def filled(value: jax.Array | None, default: float) -> jax.Array:
        if value is None:
            return jnp.full(shape, default, compute_dtype)
        return value.astype(compute_dtype)

    affine = filled(scale, 1.0), filled(bias, 0.0)
    return ChannelArguments(x, mask, feature, affine, result_dtype, compute_dtype)


def spread(value: jax.Array, axis: int, ndim: int) -> jax.Array:
    """Reshape a (channels,) array to broadcast along ``axis`` of an array of ``ndim`` axes."""
    return value.reshape([-1 if i == axis % ndim else 1 for i in range(ndim)])


@functools.partial(jax.jit, static_argnames=("axis", "reduction", "dtype"), inline=True)
def normalize_by_batch(
    x: jax.Array,
    mask: jax.Array | None,
    scale: jax.Array,
    bias: jax.Array,
    *,
    axis: int,
    epsilon: jax.Array | float,
    reduction: Reduction,
    dtype: Any = jnp.float32,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | float]:
    """Batch normalization with the statistics of the batch.

    Args:
        x: input, any floating dtype.
        mask: None, or True where a value takes part, of x's shape.
        scale: (channels,), as bias; their dtype is that of the arithmetic.
        bias: see scale.
        axis: the feature axis, counted from 0.
        epsilon: added to the variance.
        reduction: how batch statistics are reduced.
        dtype: dtype that the result will be converted to.

    Returns:
        y, of x's shape and scale's dtype, and the batch's mean, biased variance (channels,) and
        number of values: one number or, with a mask, (channels,).
    """
    rest = [size for i, size in enumerate(x.shape) if i != axis]
    count = reduction.values(rest, scale.dtype) if mask is None else None
    layout, converted = Layout(x.shape, (), (axis,)), x.astype(scale.dtype)
    sums = shifted_sums(layout, reduction, None, converted, x, mask, count, epsilon)
    totals, shift = sums.totals, sums.shift
    number = total_count(totals, count)
    mean, var = mean_and_variance(totals, number, reduction)
    if mask is not None:
        centre = layout.spread(shift + mean), layout.spread(var)
        converted = stand_in(x, mask, *centre, epsilon, dtype).astype(scale.dtype)
    # About the shift first: its rounding is then that of the data, not of a large mean.
    z = converted - layout.spread(shift) - layout.spread(mean)
    y = _affine(z, scale * inverse_std(var, epsilon), bias, axis)
    return y, shift + mean, var, totals[2] if count is None else count


def normalize_by_statistics(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    *,
    axis: int,
    epsilon: jax.Array | float,
    mask: jax.Array | None = None,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """Return the same with given statistics, (channels,)."""
    centre = spread(mean, axis, x.ndim), spread(var, axis, x.ndim)
    x = stand_in(x, mask, *centre, epsilon, dtype)
    z = x.astype(scale.dtype) - centre[0]
    return _affine(z, scale * lax.rsqrt(var + epsilon), bias, axis)


def _affine(z: jax.Array, slope: jax.Array, bias: jax.Array, axis: int) -> jax.Array:
    return z * spread(slope, axis, z.ndim) + spread(bias, axis, z.ndim)
