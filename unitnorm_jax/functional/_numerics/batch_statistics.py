"""Mean and variance of a batch: how its sums are reduced, and kept exact in one pass."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export, lax
from jaxtyping import Array, Shaped

from unitnorm_jax.functional._numerics import devices

# One pass loses about (mean/std)^2 * 2^-24 of a variance, at most 3e-7 below this; of the squared
# norm of a sample that varies 100 times less than the batch, that times 10^4.
_MAX_SQUARED_RATIO = 4.0
# The same of the squared norm: the sum over channels, against what a typical sample has.
_MAX_NORM_RATIO = 16.0


class BatchStats(NamedTuple):
    """Running statistics of a batch normalization.

    Attributes:
        mean: running mean, of the shape of the feature axes.
        var: running variance, likewise.
    """

    mean: Shaped[Array, "..."]
    var: Shaped[Array, "..."]


# What takes or returns them can be exported, written and read again.
export.register_namedtuple_serialization(
    BatchStats, serialized_name="unitnorm_jax.functional.BatchStats"
)


class Reduction(NamedTuple):
    """How the sums behind the batch statistics are taken (static and hashable).

    Attributes:
        axis_name: mapped axis whose devices add their sums, or None.
        axis_index_groups: groups of indices within that axis, or None.
        guarded: whether one-pass sums are checked and, if digits were lost, taken again.
        two_pass: whether they are taken again always.
    """

    axis_name: str | None
    axis_index_groups: tuple[tuple[int, ...], ...] | None
    guarded: bool
    two_pass: bool

    @property
    def checked(self) -> bool:
        """Whether sums are exact: about the mean, or about zero where that is as good."""
        return self.guarded or self.two_pass

    def psum(self, x: Any) -> Any:
        """Return the sum over the devices of the mapped axis, if there is one."""
        return devices.total(x, self.axis_name, self.axis_index_groups)

    def values(self, sizes: Sequence[Any], dtype: Any) -> jax.Array | float:
        """Return how many values that is, each device having the product of ``sizes``.

        A number, or an array where it is not known before the program runs: sizes may be symbolic
        (``jax.export``), groups may differ.
        """
        return number_of(math.prod(sizes), dtype) * devices.number(
            self.axis_name, self.axis_index_groups
        )


def number_of(size: Any, dtype: Any) -> jax.Array | float:
    """Return a size as a number to compute with: an array where it is symbolic."""
    return float(size) if isinstance(size, int) else jnp.asarray(size, dtype)


def hashable_groups(groups: Any) -> tuple[tuple[int, ...], ...] | None:
    """``axis_index_groups`` as a ``Reduction`` has them."""
    try:
        return None if groups is None else tuple(tuple(map(int, group)) for group in groups)
    except (TypeError, ValueError):
        raise ValueError(
            f"`axis_index_groups` (={groups!r}) must be a list of lists of indices of devices, "
            "such as [[0, 1], [2, 3]]."
        ) from None


@jax.custom_batching.custom_vmap
def _any(flags: jax.Array) -> jax.Array:
    """``jnp.any``, one scalar even under ``vmap``: a ``lax.cond`` on it stays a branch."""
    return jnp.any(flags)


@_any.def_vmap
def __any_vmap(axis_size: int, in_batched: list[bool], flags: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size, in_batched
    return _any(flags), False


def exact_sums(
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
        epsilon: that of the normalization; what is small beside it need not be exact.
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
    """Return whether sums about zero lose digits, as ``exact_sums`` says: one scalar."""
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
    """Return the number of values behind the totals of ``exact_sums``, 1 where there is none."""
    return jnp.maximum(lax.stop_gradient(totals[2]), 1) if count is None else count


def plain_mean_and_variance(
    totals: jax.Array, count: jax.Array | float, reduction: Reduction
) -> tuple[jax.Array, jax.Array]:
    """Mean (about the shift) and biased variance from the totals of ``exact_sums``.

        mean = totals[0] / count,   var = max(totals[1] / count - mean^2, 0) + rounding

    with ``rounding = 2^-23 mean^2``, the error of the rest, for sums that are not checked, those
    of bfloat16 inputs: divided by less than the error, the result would have no bound. 0 otherwise.
    """
    mean = totals[0] / count
    var = totals[1] / count - jnp.square(mean)
    var = jnp.where(var <= 0, 0, var)  # clips what is negative by roundoff; a NaN stays one
    return mean, var if reduction.checked else var + rounding_of(jnp.square(mean))


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def mean_and_variance(
    totals: jax.Array, count: jax.Array | float, reduction: Reduction
) -> tuple[jax.Array, jax.Array]:
    """Return the same, with a derivative for CPUs.

    It is one product ``[dmean, dvar] = J [dS1, dS2]``: its transpose ends in a sum, which XLA's
    CPU compiler stores, where it would otherwise evaluate the whole per-channel backward arithmetic
    again for every element of the input.
    """
    return plain_mean_and_variance(totals, count, reduction)


def rounding_of(x: jax.Array) -> jax.Array:
    """Return the error of a difference of sums as large as x; no gradient flows through it."""
    return lax.stop_gradient(jnp.finfo(x.dtype).eps * x)


@mean_and_variance.defjvp
def _mean_and_variance_jvp(reduction: Reduction, primals: Any, tangents: Any) -> Any:
    totals, count = primals
    mean, var = mean_and_variance(totals, count, reduction)
    inverse = jnp.broadcast_to(jnp.asarray(1 / count, mean.dtype), mean.shape)
    zero = jnp.zeros_like(inverse)
    clipped = totals[1] / count <= jnp.square(mean)
    dvar = jnp.where(clipped, 0, inverse)
    jacobian = jnp.stack([jnp.stack([inverse, zero]), jnp.stack([-2 * mean * dvar, dvar])])
    tangent = (jacobian * tangents[0][None, :2]).sum(1)
    return (mean, var), (tangent[0], tangent[1])


def shown(x: jax.Array) -> jax.Array:
    """x, NaN where it overflowed: the inverse of that would be 0, and hide it.

    Applied before a root, which the compiler stores. After it, it would be computed again for every
    element of the output.
    """
    return jnp.where(x == jnp.inf, jnp.nan, x)


def inverse_std(var: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """``1 / sqrt(var + epsilon)`` of a batch; NaN where the variance overflowed."""
    return lax.rsqrt(shown(var) + epsilon)


def correct_variance(
    var: jax.Array, count: jax.Array | float, epsilon: jax.Array | float
) -> jax.Array:
    """Apply the authors' correction, ``var * count / (count - (1 + epsilon))``."""
    less = jnp.asarray(count - (1 + epsilon), var.dtype)
    return var * jnp.where(less > 0, count / jnp.where(less > 0, less, 1), 1)


def update_stats(
    stats: BatchStats,
    mean: jax.Array,
    var: jax.Array,
    count: jax.Array | float,
    momentum: Any,
) -> BatchStats:
    """Return new running statistics; those of channels without a valid value stay as they are.

    ``momentum`` is the decay rate, or the pair of it and what it leaves to 1.
    """
    keep, take = momentum if isinstance(momentum, tuple) else (momentum, 1 - momentum)

    def blend(old: jax.Array, new: jax.Array) -> jax.Array:
        new = keep * old + take * new.reshape(old.shape)
        if not isinstance(count, float):
            some = jnp.broadcast_to(count > 0, mean.shape)
            new = jnp.where(some.reshape(old.shape), new, old)
        return new.astype(old.dtype)

    return BatchStats(blend(stats.mean, mean), blend(stats.var, var))
