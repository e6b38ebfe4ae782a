"""Mean and variance of a batch: how its sums are reduced, and kept exact in one pass."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

# One pass loses about (mean/std)^2 * 2^-24 of a variance, at most 3e-7 below this; of the squared
# norm of a sample that varies 100 times less than the batch, that times 10^4.
_MAX_SQUARED_RATIO = 4.0


class BatchStats(NamedTuple):
    """Running statistics of a batch normalization.

    Attributes:
      mean: running mean, of the shape of the feature axes.
      var: running variance, likewise.
    """

    mean: Shaped[Array, "..."]
    var: Shaped[Array, "..."]


class Reduction(NamedTuple):
    """How the sums behind the batch statistics are taken (static and hashable).

    Attributes:
      axis_name: mapped axis whose devices add their sums, or None.
      axis_index_groups: groups of indices within that axis, or None.
      epsilon: the epsilon of the normalization; what is small beside it need not be exact.
      guarded: whether one-pass sums are checked and, if digits were lost, taken again.
      two_pass: whether they are taken again always.
    """

    axis_name: str | None
    axis_index_groups: tuple[tuple[int, ...], ...] | None
    epsilon: float
    guarded: bool
    two_pass: bool

    def psum(self, x: Any) -> Any:
        """Sum over the devices of the mapped axis, if there is one."""
        if self.axis_name is None:
            return x
        return lax.psum(x, self.axis_name, axis_index_groups=self.axis_index_groups)


def hashable_groups(groups: Sequence[Sequence[int]] | None) -> tuple[tuple[int, ...], ...] | None:
    """``axis_index_groups`` as a ``Reduction`` has them."""
    return None if groups is None else tuple(tuple(group) for group in groups)


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
    count: float | None,
    reduction: Reduction,
) -> tuple[Any, jax.Array, jax.Array, jax.Array]:
    """Sums over a batch about zero or, where that would lose digits, about the batch's mean.

    Taken about zero the sums fuse with the operation that produced the input, and no shift has
    to be agreed on between devices. If they show ``mean^2 > 4 (var + epsilon)`` for any channel
    they are taken again about the mean, in a branch that otherwise does not run.

    Args:
      sums: maps a shift (one per channel, or None for zero) to a pair: any pytree, and the
        totals ``[sum of x - shift, sum of (x - shift)^2]`` over batch and devices, (2, ...);
        with a mask also the number of values behind them, (3, ...).
      count: the number of values per channel behind the totals, or None: theirs.
      reduction: how to reduce.

    Returns:
      The pytree and the totals of the last call, the shift they are about, and minus the shift.
      (Both shifts are results of a branch. So the compiler stores the shift: computed again by
      each of its users it could differ in the last place, which is all that matters where the
      mean is large. And it cannot express one by the other: each use of ``x - shift`` in a
      reduction then stays inside it, instead of being stored.)
    """
    result, totals = sums(None)
    zero = jnp.zeros_like(totals[0])
    if not (reduction.guarded or reduction.two_pass):
        return result, totals, zero, zero
    number = total_count(totals, count)
    mean = totals[0] / number

    def about_mean() -> tuple[Any, jax.Array, jax.Array, jax.Array]:
        return *sums(mean), mean, -mean

    if reduction.two_pass:
        limit = jnp.full_like(mean, -1)  # a branch all the same: its shift is one stored number
    else:
        limit = _MAX_SQUARED_RATIO * (totals[1] / number - jnp.square(mean) + reduction.epsilon)
    digits_lost = _any(jnp.square(mean) > limit)
    return lax.cond(digits_lost, about_mean, lambda: (result, totals, zero, zero))


def total_count(totals: jax.Array, count: float | None) -> jax.Array | float:
    """Number of values behind the totals of ``exact_sums``, 1 where there is none."""
    return jnp.maximum(lax.stop_gradient(totals[2]), 1) if count is None else count


@jax.custom_jvp
def mean_and_variance(totals: jax.Array, count: jax.Array | float) -> tuple[jax.Array, jax.Array]:
    """Mean (about the shift) and biased variance from the totals of ``exact_sums``.

        mean = totals[0] / count,   var = max(totals[1] / count - mean^2, 0)

    The derivative is written as one product ``[dmean, dvar] = J [dS1, dS2]``: its transpose ends
    in a sum, which XLA's CPU compiler stores, where it would otherwise evaluate the whole
    per-channel backward arithmetic again for every element of the input.
    """
    mean = totals[0] / count
    var = totals[1] / count - jnp.square(mean)
    return mean, jnp.where(var > 0, var, 0)  # clips what is negative by roundoff


@mean_and_variance.defjvp
def _mean_and_variance_jvp(primals: Any, tangents: Any) -> Any:
    totals, count = primals
    mean, var = mean_and_variance(totals, count)
    inverse = jnp.broadcast_to(jnp.asarray(1 / count, mean.dtype), mean.shape)
    zero = jnp.zeros_like(inverse)
    dvar = jnp.where(var > 0, inverse, 0)
    jacobian = jnp.stack([jnp.stack([inverse, zero]), jnp.stack([-2 * mean * dvar, dvar])])
    tangent = (jacobian * tangents[0][None, :2]).sum(1)
    return (mean, var), (tangent[0], tangent[1])


def correct_variance(var: jax.Array, count: jax.Array | float, epsilon: float) -> jax.Array:
    """The authors' correction, ``var * count / (count - (1 + epsilon))``; not for one value."""
    less = jnp.asarray(count - (1 + epsilon), var.dtype)
    return var * jnp.where(less > 0, count / jnp.where(less > 0, less, 1), 1)


def update_stats(
    stats: BatchStats,
    mean: jax.Array,
    var: jax.Array,
    count: jax.Array | float,
    momentum: float,
) -> BatchStats:
    """New running statistics; those of channels without a valid value stay as they are."""

    def blend(old: jax.Array, new: jax.Array) -> jax.Array:
        new = momentum * old + (1 - momentum) * new.reshape(old.shape)
        if not isinstance(count, float):
            new = jnp.where(count.reshape(old.shape) > 0, new, old)
        return new.astype(old.dtype)

    return BatchStats(blend(stats.mean, mean), blend(stats.var, var))
