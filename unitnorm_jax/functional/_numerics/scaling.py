"""Sums of squares that neither lose digits about a large mean, nor overflow or underflow."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Centred(NamedTuple):
    """An array without its mean; the last two keep the axes they are reduced over.

    Attributes:
        z: ``x - mean``.
        mean: the mean.
        size: the largest ``|z|`` to rounding, a constant for autodiff.
    """

    z: jax.Array
    mean: jax.Array
    size: jax.Array


def centred(x: jax.Array, axes: Sequence[int]) -> Centred:
    """Take the mean over ``axes`` off, such that nothing is left of a constant.

    The first guess of the mean is held between the least and the greatest value: ``x - guess`` is
    then exactly 0 for a constant, and exact where the values differ little beside their mean. The
    rest of the mean is taken off afterwards.
    """
    axes = tuple(axes)
    least, greatest = (lax.stop_gradient(f(x, axes, keepdims=True)) for f in (jnp.min, jnp.max))
    guess = lax.stop_gradient(jnp.clip(x.mean(axes, keepdims=True), least, greatest))
    z = x - guess
    rest = z.mean(axes, keepdims=True)
    size = jnp.maximum(greatest - guess, guess - least)
    return Centred(z - rest, guess + rest, size)


def power_of_two(size: jax.Array, most: float = math.inf) -> jax.Array:
    """Return f, a power of two, for which ``f * size`` is in [0.5, 1), but at most ``most``.

    Multiplying by it is exact. It is a constant for autodiff. Of no size it is ``most``, or 1
    where that is infinite.
    """
    size = lax.stop_gradient(size)
    limit = -int(jnp.finfo(size.dtype).minexp)  # of exponents: f and 1 / f stay normal numbers
    most = min(most, 2.0**limit) if most < math.inf else most
    _, exponent = jnp.frexp(size)
    factor = jnp.ldexp(jnp.ones_like(size), -jnp.clip(exponent, -limit, limit))
    some = (size > 0) & jnp.isfinite(size)
    return jnp.where(some, jnp.minimum(factor, most), most if most < math.inf else 1)


def one_number(x: jax.Array) -> jax.Array:
    """Round to a bit less than the dtype holds, so that every user has the same number.

    The compiler repeats cheap arithmetic in each of its users, and contracts it with what follows:
    the quotient of a mean, subtracted from x, is then rounded elsewhere than the mean that is
    added again, and the two differ by the last place of a large mean.
    """
    info = jnp.finfo(x.dtype)
    return lax.reduce_precision(x, info.iexp, info.nmant - 1)
