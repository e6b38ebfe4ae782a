"""Unitized batch normalization of samples that have positions, for GPUs.

The same as ``by_sample``, in as few and as full kernels as the compiler can be led to:

- A sum over the positions of a sample is one block's work, and samples are too few to fill a GPU.
  So each is cut into pieces, which are summed at once and added afterwards: without that the
  compiler sees reductions as too slow to fuse, and stores the gradient of the ReLU that comes next.
- Vectors of channels meet (n, c) matrices in one broadcast of a stack. Its transpose is one sum
  over samples of all that derivatives need (the six sums of ``_numerics``), so one kernel.
- Two sums over the same values are one, of complex numbers or of pairs, which reads them once. Two
  would be two readers, for which the compiler stores the mask of a ReLU rather than find it twice.
- Sums are taken again about the mean, where digits were lost, in a branch that returns one array,
  the centred sums and their totals, which otherwise are arithmetic of those about zero. On several
  devices they are totalled after the branch: a collective inside would keep it out of a CUDA graph,
  and have the host wait for it.

Everything else is automatic differentiation. x is all that is kept for the backward pass.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.functional._numerics.batch_statistics import (
    Reduction,
    correct_variance,
    inverse_std,
    plain_mean_and_variance,
    rounding_of,
)
from unitnorm_jax.functional._numerics.by_sample import affine, typical_weight
from unitnorm_jax.functional._numerics.layout import Layout
from unitnorm_jax.functional._numerics.masked import stand_in
from unitnorm_jax.functional._numerics.norms import inverse_norm, mixed, squared_norms
from unitnorm_jax.functional._numerics.scaling import one_number
from unitnorm_jax.functional._numerics.shifted_sums import digits_lost, total_count


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
    alone = devices == 1 and reduction.axis_name is None
    plan = Plan(joined=True, in_branch=alone, totals_only=False)
    sums = centred_sums(reduction, plan, x.astype(alpha.dtype), x, *rest)
    each, totals, shift, minus_shift = sums
    values = total_count(totals, count)
    mean, var = plain_mean_and_variance(totals, values, reduction)
    if bessel_correction:
        var = correct_variance(var, values, epsilon)
    inv_std = inverse_std(var, epsilon)

    slope = scale * inv_std
    u, v, b, m, r = _to_samples(samples, (slope, slope * alpha, bias, mean, inv_std))
    sum1, sum2 = each
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
    parts = Layout(cut, (0,), (3,))
    y = affine(parts, _add, x.astype(alpha.dtype), x, shift, minus_shift, a, b)
    return y.reshape(shape), shift + mean, var, totals[2] if count is None else count


def _spread(v: jax.Array) -> jax.Array:
    """Return (c,) or (n, c) values, to broadcast with the cut input."""
    return v[:, None, None] if v.ndim == 2 else v[None, None, None]


def _add_both(a: Any, b: Any) -> Any:
    return a[0] + b[0], a[1] + b[1]


def _add_pieces(z: jax.Array) -> jax.Array:
    """Add sums of pieces, (..., k, c) -> (..., c); the barrier keeps both sums two kernels."""
    return lax.optimization_barrier(z).sum(-2)


def _add_samples(
    reduction: Reduction, sums: Any, mask: jax.Array | None, number: jax.Array | float
) -> jax.Array:
    """Return sums over samples and devices, (2, c); with a mask, also the numbers of values."""
    sums = jnp.asarray(sums)
    if mask is not None:
        sums = jnp.concatenate([sums, jnp.asarray(number)[None]])
    return reduction.psum(sums.sum(1))


def _to_samples(samples: int, vectors: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Return each vector of channels, (c,), as a matrix, (n, c).

    They are arrays of a stack of their halves. Were it of themselves, gradients of parameters would
    be slices of a sum, and each slice a copy.
    """
    stack = 0.5 * jnp.stack(vectors)
    number, channels = stack.shape
    stack = jnp.broadcast_to(stack[:, None], (number, samples, channels))
    return [2 * one[0] for one in lax.split(stack, (1,) * number, axis=0)]


class Plan(NamedTuple):
    """How ``centred_sums`` are taken (static and hashable).

    Attributes:
        joined: whether the two sums are one operation.
        in_branch: whether totals are taken in the branch, over devices, too.
        totals_only: whether nothing but the totals is asked for.
    """

    joined: bool
    in_branch: bool
    totals_only: bool


class Sums(NamedTuple):
    """Sums of ``x - shift`` and of its square.

    Attributes:
        each: over the positions of each sample, (2, n, c); None where totals alone are asked for.
        totals: over samples and devices, too, (2, c); with a mask, (3, c), the last the number of
            values.
        shift: the mean of the batch to rounding, or 0 where sums are not checked, (c,).
        minus_shift: its negative. (To the compiler they are two arrays: were they one, it would
            store ``x - shift`` of the forward pass for the backward pass.)
    """

    each: Any
    totals: jax.Array
    shift: jax.Array
    minus_shift: jax.Array


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def centred_sums(
    reduction: Reduction,
    plan: Plan,
    converted: jax.Array,
    x: jax.Array,
    mask: jax.Array | None,
    number: jax.Array | float,
    count: jax.Array | float | None,
    epsilon: jax.Array | float,
    norm_epsilon: jax.Array | float | None,
) -> Sums:
    """Return the sums behind the statistics.

    A custom derivative because no gradient flows through the shift, and the branch must not store
    a copy of x.
    """

    def sums(minus_shift: jax.Array | None) -> Any:
        z = converted if minus_shift is None else converted + _spread(minus_shift)
        z = z if mask is None else jnp.where(mask, z, 0)
        parts: Any = z, jnp.square(z)
        if plan.joined:  # where a product of matrices made x, the compiler joins no others
            parts = lax.reduce(parts, (jnp.zeros((), z.dtype),) * 2, _add_both, (2,))
        else:
            parts = parts[0].sum(2), parts[1].sum(2)
        parts = lax.optimization_barrier(parts)
        if x.shape[1] == 1:  # stacked by who reads them
            return parts[0][:, 0], parts[1][:, 0]
        return lax.optimization_barrier(jnp.stack(parts).sum(2))

    about_zero = sums(None)
    totals = _add_samples(reduction, about_zero, mask, number)
    if not reduction.checked:
        zero = jnp.zeros(x.shape[-1], converted.dtype)
        return Sums(None if plan.totals_only else jnp.asarray(about_zero), totals, zero, zero)
    values = total_count(totals, count)

    shift = one_number(totals[0] / values)
    if not plan.in_branch:
        # Five steps or more are a CUDA graph. Between two collectives there are four, and this.
        shift = lax.optimization_barrier(shift)

    def moved(sums: Any, number: Any) -> jax.Array:
        sum1, sum2 = sums
        mean = jnp.broadcast_to(shift, sum1.shape)
        return jnp.stack([sum1 - number * mean, sum2 - (2 * sum1 - number * mean) * mean])

    def result(each: jax.Array, totals: jax.Array) -> jax.Array:
        if not plan.in_branch:
            return each
        return totals if plan.totals_only else jnp.append(each, totals[:, None], 1)

    def about_mean() -> jax.Array:
        each = jnp.asarray(sums(lax.optimization_barrier(-shift)))
        return result(each, reduction.psum(each.sum(1)) if plan.in_branch else totals)

    def usual() -> jax.Array:
        return result(moved(about_zero, number), moved(totals[:2], values))

    lost = digits_lost(shift, totals[1] / values, epsilon, reduction, norm_epsilon)
    each = lax.cond(lost, about_mean, usual)
    if not plan.in_branch:
        if plan.totals_only:  # without a user by rows the compiler would gather them everywhere
            each = jnp.where(lost, each, lax.optimization_barrier(moved(about_zero, number)))
        totals = _add_samples(reduction, each, mask, number)
    elif plan.totals_only:
        totals = each
    else:
        each, totals = each[:, :-1], jnp.concatenate([each[:, -1], totals[2:]])
    minus_shift = lax.optimization_barrier(-shift)
    return Sums(None if plan.totals_only else each, totals, shift, minus_shift)


@centred_sums.defjvp
def _centred_sums_jvp(reduction: Reduction, plan: Plan, primals: Any, tangents: Any) -> Any:
    _, x, mask, *_ = primals
    sums = centred_sums(reduction, plan, *primals)

    def linear(dx: jax.Array, x: jax.Array, shift: jax.Array) -> jax.Array:
        z = x.astype(dx.dtype) - _spread(shift)
        if mask is not None:
            z, dx = (jnp.where(mask, value, 0) for value in (z, dx))
        return lax.optimization_barrier(jnp.stack([dx.sum((1, 2)), 2 * (z * dx).sum((1, 2))]))

    deach = jax.checkpoint(linear, prevent_cse=False)(tangents[0], x, sums.shift)
    dtotals = reduction.psum(deach.sum(1))
    dtotals = jnp.concatenate([dtotals, jnp.zeros_like(sums.totals[2:])])
    dshift = jnp.zeros_like(sums.shift)
    return sums, Sums(None if plan.totals_only else deach, dtotals, dshift, dshift)


def _add(
    layout: Layout, da: jax.Array, db: jax.Array, x: jax.Array, minus_shift: jax.Array
) -> jax.Array:
    """``da (x + minus_shift) + db``: its transpose sums over each piece, and then over pieces."""
    samples, pieces, _, channels = layout.shape
    pair = jnp.broadcast_to(lax.complex(da, db)[:, None], (samples, pieces, channels))
    pair = jnp.broadcast_to(lax.optimization_barrier(pair)[:, :, None], layout.shape)
    z = x.astype(da.dtype) + layout.spread(minus_shift)
    return lax.real(pair) * z + lax.imag(pair)
