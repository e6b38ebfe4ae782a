"""Tails of the normal distribution, to rounding wherever they are representable."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import ndtr

_ROOT_OF_TAU = 2.5066282746310002  # sqrt(2 pi)
_FAR = 2.0  # from here on the continued fraction
_TERMS = {4: 20, 8: 60}  # by bytes of a number: what the rest is worth is below rounding


class MillsRatios(NamedTuple):
    """``E max(Z - b, 0)^n / phi(b)`` for a standard normal Z with density phi, of n = 0, 1, 2."""

    zeroth: jax.Array
    first: jax.Array
    second: jax.Array


def mills_ratios(b: jax.Array) -> MillsRatios:
    """Return R_0, R_1, R_2 at b >= 0.

    By parts, ``R_n+1 = n R_n-1 - b R_n`` with ``R_1 = 1 - b R_0``, which loses b^2n digits. So far
    out the ratios ``r_n = R_n / R_n-1 = n / (b + r_n+1)`` are taken from the last to the first: no
    differences.
    """
    near_b = jnp.minimum(b, _FAR)
    zeroth = ndtr(-near_b) * jnp.exp(0.5 * jnp.square(near_b)) * _ROOT_OF_TAU
    first = 1 - near_b * zeroth
    near = zeroth, first, zeroth - near_b * first
    far_b = jnp.maximum(b, _FAR)
    terms = _TERMS[b.dtype.itemsize]
    ratio = 0.5 * (jnp.sqrt(jnp.square(far_b) + 4.0 * terms) - far_b)  # where r_n+1 = r_n
    ratios = [ratio := n / (far_b + ratio) for n in range(terms - 1, 0, -1)]
    zeroth = 1 / (far_b + ratios[-1])
    first = zeroth * ratios[-1]
    far = zeroth, first, first * ratios[-2]
    return MillsRatios(*(jnp.where(b < _FAR, n, f) for n, f in zip(near, far, strict=True)))


@jax.custom_jvp
def fourth_root_of_density(mean: jax.Array, var: jax.Array) -> jax.Array:
    """``exp(-mean^2 / (4 var))``, for a mean and a variance about 1; underflows late.

    An exponent of 80 in float32 is off by 5e-6, and so is the exponential. So the square and the
    quotient are taken with what their rounding leaves over.
    """
    half = (jnp.finfo(mean.dtype).nmant + 1) // 2 - 1  # bits of factors whose product is exact

    def split(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        high = lax.reduce_precision(x, jnp.finfo(x.dtype).iexp, half)
        return high, x - high

    high, low = split(mean)
    square, rest = high * high, low * (mean + high)
    quotient = square / var
    (qh, ql), (vh, vl) = split(quotient), split(var)
    rest = rest + (((square - qh * vh) - qh * vl) - ql * vh) - ql * vl
    return jnp.exp(-0.25 * quotient) * jnp.exp(-0.25 * (rest / var))


@fourth_root_of_density.defjvp
def _fourth_root_of_density_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (mean, var), (dmean, dvar) = primals, tangents
    out = fourth_root_of_density(mean, var)
    ratio = mean / var
    return out, -0.25 * out * (2 * ratio * dmean - jnp.square(ratio) * dvar)
