"""Sums over the batch about a shift: in one pass about zero, exact all the same."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.functional._numerics.batch_statistics import Reduction, number_of
from unitnorm_jax.functional._numerics.folded_sums import Fold, on_cpu
from unitnorm_jax.functional._numerics.layout import Layout

# One pass loses about (mean/std)^2 * 2^-24 of a variance, at most 3e-7 below this; of the squared
# norm of a sample that varies 100 times less than the batch, that times 10^4.
_MAX_SQUARED_RATIO = 4.0
# The same of the squared norm: the sum over channels, against what a typical sample has.
_MAX_NORM_RATIO = 16.0


class ShiftedSums(NamedTuple):
    """Sums of x - shift and of its square: S1 and S2 of ``_numerics``, about a shift.

    Attributes:
        each: both over the positions of every sample, (samples, channels).
        number: positions of every sample: one number or, with a mask, (samples, channels).
        totals: both over samples and devices, too, (2, channels); with a mask also the number of
            values behind them, (3, channels).
        shift: (channels,).
        minus_shift: minus the shift.
    """

    each: tuple[jax.Array, jax.Array]
    number: Any
    totals: jax.Array
    shift: jax.Array
    minus_shift: jax.Array


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def shifted_sums(
    layout: Layout,
    reduction: Reduction,
    fold: Fold | None,
    converted: jax.Array,
    x: jax.Array,
    mask: jax.Array | None,
    count: jax.Array | float | None,
    epsilon: jax.Array | float,
    norm_epsilon: jax.Array | float | None = None,
) -> ShiftedSums:
    """Return the sums that batch statistics and norms are made of, as ``_exact_sums`` takes them.

    Their derivative is ``dS1 = sum dx``, ``dS2 = 2 sum (x - shift) dx``. It is a custom one because
    the mean, ``shift + S1 / M``, and the variance, ``S2 / M - (S1 / M)^2``, do not depend on the
    shift, so that no gradient flows through it; because the branch that may choose it must not
    store a copy of x; and because x, as it came, is all that is kept for the backward pass.

    Args:
        layout: the axes of x. Without axes of samples the batch is a single one.
        reduction: how totals are reduced.
        fold: how CPUs add slabs, or None.
        converted: x in the dtype of the arithmetic.
        x: input.
        mask: None, or True where a value takes part, of x's shape.
        count: see ``_exact_sums``, as epsilon and norm_epsilon.
        epsilon: see count.
        norm_epsilon: see count.
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
        return tuple(map(layout.matrix, sums))

    add = on_cpu(fold, folded, plain)

    def sums(shift: jax.Array | None) -> Any:
        each = _apart(layout, add(converted, x, shift))
        parts = each if mask is None else (*each, number)
        return each, reduction.psum(jnp.stack([part.sum(0) for part in parts]))

    each, totals, shift, minus_shift = _exact_sums(sums, count, epsilon, reduction, norm_epsilon)
    return ShiftedSums(each, number, totals, shift, minus_shift)


@shifted_sums.defjvp
def _shifted_sums_jvp(
    layout: Layout, reduction: Reduction, fold: Fold | None, primals: Any, tangents: Any
) -> Any:
    _, x, mask, *_ = primals
    out = shifted_sums(layout, reduction, fold, *primals)

    def linear(dx: jax.Array, x: jax.Array, shift: jax.Array) -> Any:
        dx = dx if mask is None else jnp.where(mask, dx, 0)
        z = x.astype(dx.dtype) - layout.spread(shift)
        z = z if mask is None else jnp.where(mask, z, 0)
        return _apart(layout, (layout.over_positions(dx), 2 * layout.over_positions(z * dx)))

    deach = jax.checkpoint(linear, prevent_cse=False)(tangents[0], x, out.shift)
    dparts = [part.sum(0) for part in deach]
    if mask is not None:
        dparts.append(jnp.zeros_like(dparts[0]))
    dnumber, dshift = jax.tree.map(jnp.zeros_like, (out.number, out.shift))
    return out, ShiftedSums(deach, dnumber, reduction.psum(jnp.stack(dparts)), dshift, dshift)


def _apart(layout: Layout, sums: Any) -> Any:
    """Return the sums; XLA will not make their totals second reductions over all of x."""
    return lax.optimization_barrier(sums) if layout.samples else sums


@jax.custom_batching.custom_vmap
def _any(flags: jax.Array) -> jax.Array:
    """``jnp.any``, one scalar even under ``vmap``: a ``lax.cond`` on it stays a branch."""
    return jnp.any(flags)


@_any.def_vmap
def __any_vmap(axis_size: int, in_batched: list[bool], flags: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size, in_batched
    return _any(flags), False


def _exact_sums(
    sums: Callable[[jax.Array | None], tuple[Any, jax.Array]],
    count: jax.Array | float | None,
    epsilon: jax.Array | float,
    reduction: Reduction,
    norm_epsilon: jax.Array | float | None = None,
) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
    """Return sums over a batch about zero or, where that would lose digits, about the batch's mean.

    Taken about zero the sums fuse with the operation that produced the input, and no shift has
    to be agreed on between devices. They are taken again about the mean, in a branch that
    otherwise does not run, if they overflow or show

        mean_c^2 > 4 (var_c + epsilon)                                         for any channel, or
        sum_c mean_c^2 / (var_c + epsilon)
            > 16 (sum_c var_c / (var_c + epsilon) + norm_epsilon)              (if it is given)

    The second is about the squared norm of a sample: where variances are far below epsilon it is
    exact to epsilon while the squares that it is made of lose all their digits.

    Args:
        sums: maps a shift (one per channel, or None for zero) to a pair: any pytree, and the totals
            ``[sum of x - shift, sum of (x - shift)^2]`` over batch and devices, (2, ...); with a
            mask also the number of values behind them, (3, ...).
        count: the number of values per channel behind the totals, or None: theirs.
        epsilon: of the normalization; a variance far below it need not be exact.
        reduction: how to reduce.
        norm_epsilon: epsilon / (kappa P), for a squared norm kappa sum_c sum_p xhat^2.

    Returns:
        The pytree and the totals of the last call, the shift they are about, and minus the shift.
        (Both shifts are results of a branch. So the compiler stores the shift: computed again by
        each of its users it could differ in the last place, which is all that matters where the
        mean is large. And it cannot express one by the other: each use of ``x - shift`` in a
        reduction then stays inside it, instead of being stored.)
    """
    result, totals = sums(None)
    zero = jnp.zeros_like(totals[0])
    if not reduction.checked:
        return result, totals, zero, zero
    values = total_count(totals, count)
    mean = totals[0] / values

    def about_mean() -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        return *sums(mean), mean, -mean

    lost = digits_lost(mean, totals[1] / values, epsilon, reduction, norm_epsilon)
    return lax.cond(lost, about_mean, lambda: (result, totals, zero, zero))


def digits_lost(
    mean: jax.Array,
    mean_square: jax.Array,
    epsilon: jax.Array | float,
    reduction: Reduction,
    norm_epsilon: jax.Array | float | None = None,
) -> jax.Array:
    """Return whether sums about zero lose digits, as ``_exact_sums`` says: one scalar."""
    square = jnp.square(mean)
    # Written such that a NaN, of sums that overflow, counts as lost.
    if reduction.two_pass:
        # A branch all the same: its shift is one stored number.
        return _any(~(square <= jnp.full_like(mean, -1)))
    var = mean_square - square
    kept = square <= _MAX_SQUARED_RATIO * (var + epsilon)
    if norm_epsilon is None:
        return _any(~kept)
    excess = (square - _MAX_NORM_RATIO * var) / (var + epsilon)
    excess = jnp.where(kept, excess, jnp.inf).sum()  # one sum: each is a kernel on a GPU
    return _any(~(excess <= _MAX_NORM_RATIO * norm_epsilon))


def total_count(totals: jax.Array, count: jax.Array | float | None) -> jax.Array | float:
    """Return the number of values behind the totals of ``shifted_sums``, 1 where there is none."""
    return jnp.maximum(lax.stop_gradient(totals[2]), 1) if count is None else count
