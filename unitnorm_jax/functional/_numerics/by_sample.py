"""Unitized batch normalization of samples that have positions, and of masked inputs."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.functional._numerics.batch_statistics import (
    Reduction,
    correct_variance,
    exact_sums,
    inverse_std,
    mean_and_variance,
    number_of,
    rounding_of,
    total_count,
)
from unitnorm_jax.functional._numerics.folded_sums import Fold, choose_fold, on_cpu
from unitnorm_jax.functional._numerics.masked import stand_in
from unitnorm_jax.functional._numerics.norms import inverse_norm, mixed, squared_norms, unit_weight


class Layout(NamedTuple):
    """Shape of an input, and how many of its axes, first and last, are samples and features.

    Small arrays are (samples, channels) matrices; the input itself is never reshaped, because
    XLA would then convert half precision once for each shape. Sizes may be symbolic.
    """

    shape: tuple[Any, ...]
    sample_axes: int
    feature_axes: int

    @property
    def positions(self) -> tuple[int, ...]:
        """The axes between those of samples and features."""
        return tuple(range(self.sample_axes, len(self.shape) - self.feature_axes))

    @property
    def counts(self) -> tuple[Any, Any, Any]:
        """Numbers of samples, of positions of a sample, and of channels."""
        last = len(self.shape) - self.feature_axes
        parts = self.shape[: self.sample_axes], self.shape[self.sample_axes : last]
        return math.prod(parts[0]), math.prod(parts[1]), math.prod(self.shape[last:])

    def over_positions(self, z: jax.Array, **options: Any) -> jax.Array:
        """Return the sums over positions, (samples, channels)."""
        samples, _, channels = self.counts
        return z.sum(self.positions, **options).reshape(samples, channels)

    def spread(self, v: jax.Array) -> jax.Array:
        """Return a (samples, channels) or (channels,) array, to broadcast with the input."""
        last = len(self.shape) - self.feature_axes
        first = self.shape[: self.sample_axes] if v.ndim == 2 else (1,) * self.sample_axes
        return v.reshape((*first, *(1 for _ in self.positions), *self.shape[last:]))


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
    (sum1, sum2, number), totals, shift, minus_shift = _moments(
        layout, reduction, unit, converted, x, mask, count, epsilon
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
    y = _affine(layout, converted, x, shift, minus_shift, a, b)
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


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _moments(
    layout: Layout,
    reduction: Reduction,
    unit: str | float,
    converted: jax.Array,
    x: jax.Array,
    mask: jax.Array | None,
    count: jax.Array | float | None,
    epsilon: jax.Array | float,
) -> Any:
    """Return sums over positions, their totals over the batch, and the shift they are about.

    A custom derivative because no gradient flows through the shift, the branch that may choose
    it must not store a copy of x, and x is all that is kept for the backward pass.
    """
    dtype = converted.dtype
    number: Any = number_of(layout.counts[1], dtype)
    if mask is not None:
        number = layout.over_positions(mask, dtype=dtype)

    def plain(converted: jax.Array, _: jax.Array, shift: jax.Array | None) -> Any:
        z = converted if shift is None else converted - layout.spread(shift)
        z = z if mask is None else jnp.where(mask, z, 0)
        return layout.over_positions(z), layout.over_positions(jnp.square(z))

    def folded(fold: Fold, _: jax.Array, x: jax.Array, shift: jax.Array | None) -> Any:
        shift = None if shift is None else layout.spread(shift)
        sums = fold.moments(x, shift, layout.positions, dtype)
        return tuple(one.reshape(samples, channels) for one in sums)

    samples, _, channels = layout.counts
    fold = None
    if mask is None and x.dtype != dtype:  # plain sums would have the converted input stored first
        fold = choose_fold(x.shape, layout.positions, dtype)
    add = on_cpu(fold, folded, plain)

    def sums(shift: jax.Array | None) -> Any:
        sum1, sum2 = add(converted, x, shift)
        # The barrier keeps XLA from making the totals second reductions over all of x.
        sum1, sum2 = lax.optimization_barrier((sum1, sum2))
        parts = (sum1, sum2) if mask is None else (sum1, sum2, number)
        return (sum1, sum2), reduction.psum(jnp.stack([part.sum(0) for part in parts]))

    typical = typical_weight(unit, layout, dtype, masked=mask is not None)
    (sum1, sum2), totals, shift, minus_shift = exact_sums(
        sums, count, epsilon, reduction, epsilon / typical
    )
    return (sum1, sum2, number), totals, shift, minus_shift


@_moments.defjvp
def _moments_jvp(
    layout: Layout, reduction: Reduction, unit: str | float, primals: Any, tangents: Any
) -> Any:
    _, x, mask, *_ = primals
    out = _moments(layout, reduction, unit, *primals)
    (_, _, number), _, shift, _ = out

    def linear(dx: jax.Array, x: jax.Array, shift: jax.Array) -> Any:
        dx = dx if mask is None else jnp.where(mask, dx, 0)
        z = x.astype(dx.dtype) - layout.spread(shift)
        z = z if mask is None else jnp.where(mask, z, 0)
        dsum1, dsum2 = layout.over_positions(dx), 2 * layout.over_positions(z * dx)
        return lax.optimization_barrier((dsum1, dsum2))

    dsum1, dsum2 = jax.checkpoint(linear, prevent_cse=False)(tangents[0], x, shift)
    dparts = [dsum1.sum(0), dsum2.sum(0)]
    if mask is not None:
        dparts.append(jnp.zeros_like(dparts[0]))
    dnumber, dshift = jax.tree.map(jnp.zeros_like, (number, shift))
    return out, ((dsum1, dsum2, dnumber), reduction.psum(jnp.stack(dparts)), dshift, dshift)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _affine(
    layout: Layout,
    converted: jax.Array,
    x: jax.Array,
    shift: jax.Array,
    minus_shift: jax.Array,
    a: jax.Array,
    b: jax.Array,
) -> jax.Array:
    """Return ``a * (x - shift) + b``, whose derivative keeps x and reads ``minus_shift``."""
    del x, minus_shift
    return layout.spread(a) * (converted - layout.spread(shift)) + layout.spread(b)


@_affine.defjvp
def _affine_jvp(layout: Layout, primals: Any, tangents: Any) -> Any:
    _, x, _, minus_shift, a, _ = primals
    dx, _, _, _, da, db = tangents

    def linear(dx: Any, da: Any, db: Any, x: Any, minus_shift: Any, a: Any) -> jax.Array:
        fold = choose_fold(x.shape, layout.positions, da.dtype)
        add = on_cpu(fold, functools.partial(_map_folded, layout), functools.partial(_map, layout))
        rest = add(da, db, x, minus_shift)
        return layout.spread(a) * dx + rest

    tangent = jax.checkpoint(linear, prevent_cse=False)(dx, da, db, x, minus_shift, a)
    return _affine(layout, *primals), tangent


def _map(
    layout: Layout, da: jax.Array, db: jax.Array, x: jax.Array, minus_shift: jax.Array
) -> jax.Array:
    """``da (x + minus_shift) + db``, whose transpose is the sums behind the gradients."""
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
