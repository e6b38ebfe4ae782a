"""Mean and variance of a batch: how its sums are reduced, and kept exact in one pass."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export, lax
from jaxtyping import Array, Shaped

from unitnorm_jax.functional._numerics import devices


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


def plain_mean_and_variance(
    totals: jax.Array, count: jax.Array | float, reduction: Reduction
) -> tuple[jax.Array, jax.Array]:
    """Mean (about the shift) and biased variance from the totals of ``shifted_sums``.

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
