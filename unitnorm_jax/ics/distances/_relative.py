"""Distances in units of the layer's own spread."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.ics.distances import _rounding, _samples
from unitnorm_jax.ics.distances._cascade import EMDistance
from unitnorm_jax.ics.distances._compiled import compiled
from unitnorm_jax.ics.distances._samples import (
    Given,
    Samples,
    given,
    mean,
    mean_error,
    norm_error,
    norms,
)

_RESOLVED = 1e-5  # relative error of a spread that leaves a distance as exact as it was


def spread(x: Shaped[Array | np.ndarray, "n ..."]) -> Float[Array, ""]:
    """Return the layer's own spread, ``E |x - E x|``: W1 from the sample to its mean.

    Args:
        x: Samples (n, ...).

    Returns:
        The mean Euclidean distance from the mean, in the unit of x.

    Raises:
        ValueError: If x is empty or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> spread(jnp.array([[0.0, 0.0], [6.0, 8.0]]))
        Array(5., dtype=float32)
    """
    return _spread(given(x, x))


def relative(distance: EMDistance, x: Shaped[Array | np.ndarray, "n ..."]) -> EMDistance:
    """Return a distance in units of the spread of x: ``W1(x, y) / E |x - E x|``.

    Free of the layer's scale: with y = x + t the value is the shift in spreads, and
    ``relative(em_distance(c x, c y), c x) = relative(em_distance(x, y), x)`` for c > 0 (W1 and
    the spread are both homogeneous of degree 1, and blind to a common offset). For independent
    samples of one distribution it is at most 2 (U2 with m the mean). Use it to compare layers,
    and normalizations that differ in output scale: unitized outputs with unit "reference" are
    sqrt(P / C) large.

    Args:
        distance: From `em_distance`.
        x: The samples before the update, (n, ...), of the same layer.

    Returns:
        Value and bounds divided by the spread, the bounds rounded outwards by the error of the
        spread as well. `exact` as it was, if that error is at most 1e-5 of the spread: not where
        the spread is lost beside an offset, or underflows. A spread of 0 gives inf, or NaN,
        which is never exact, where the distance is 0.

    Raises:
        ValueError: If x is empty or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.ics import em_distance
        >>> x = jnp.array([[0.0, 0.0], [6.0, 8.0]])
        >>> d = relative(em_distance(x, x + 1.0), x)
        >>> round(float(d.value), 5)
        0.28284

    References:
        Derived here.
    """
    return _relative(distance, given(x, x))


class Spread(NamedTuple):
    """The spread and how far it may be from the true one, times 2^exponent."""

    scaled: jax.Array
    error: jax.Array
    exponent: jax.Array
    none: jax.Array
    """Whether all samples are the same: a spread of 0, and no error."""

    def value(self) -> jax.Array:
        """Return the spread, in the unit of the samples."""
        return _rounding.times_power_of_two(self.scaled, -self.exponent)


def spread_of(s: Samples, masses: jax.Array | None = None) -> Spread:
    """Return the spread of s.x; with `masses`, as `pairing` takes them, of weighted samples."""
    n, d = s.x.shape
    x = s.x - s.x[:1]  # one rounding, so that a large common offset does no harm
    depth = mean_error(n) + (0 if masses is None else 2)

    def average(z: jax.Array) -> jax.Array:
        if masses is None:
            return mean(z)
        return _rounding.tree_sum(masses.reshape(-1, *(1,) * (z.ndim - 1)) * z)

    centre = average(x)
    value = average(norms(x - centre[None, :]))
    offset = jnp.sqrt(_rounding.tree_sum(jnp.square(centre)))
    units = (depth + 6) * (value + offset) + (norm_error(d) + depth + 4) * value
    error = units * _rounding.unit_roundoff(x.dtype) + _samples.underflow(d, x.dtype)
    none = jnp.all(_rounding.same_rows(s.x, jnp.broadcast_to(s.x[:1], s.x.shape)))
    if s.error is not None:  # that of x, twice: each point may be off, and so may the mean
        moved = _rounding.times_power_of_two(s.error, s.exponent)
        error = _rounding.nudge(error + moved, error + moved, 2)
        none &= s.error == 0
    return Spread(value, error, s.exponent, none)


def in_spreads(distance: EMDistance, unit: Spread, scaled: jax.Array | None = None) -> EMDistance:
    """Return the distance divided by the spread, with bounds on both.

    Args:
        distance: In the unit of the samples.
        unit: The spread.
        scaled: Its value and bounds times 2^exponent, (3, ...), where these are at hand.
    """
    if scaled is None:
        numbers = jnp.stack(distance[:3])  # one operation to compile, not three
        exponents = jnp.broadcast_to(unit.exponent, numbers.shape)
        scaled = _rounding.times_power_of_two(numbers, exponents)
    value, lower, upper = scaled
    info = jnp.finfo(value.dtype)
    above, below = unit.scaled + unit.error, unit.scaled - unit.error
    u = 4 * _rounding.unit_roundoff(info.dtype)
    # An error as large as the spread leaves no upper bound; nor may one underflow to 0.
    upper = jnp.where(below > 0, upper / below * (1 + u), jnp.inf)
    upper = jnp.where(distance.upper == 0, 0, jnp.maximum(upper, info.tiny))
    lower = jnp.minimum(lower / above * (1 - u), info.max)
    exact = distance.exact & (unit.error <= _RESOLVED * unit.scaled) & jnp.isfinite(upper)
    ratio = EMDistance(jnp.clip(value / unit.scaled, lower, upper), lower, upper, exact)
    undefined = distance.value / jnp.zeros_like(value)  # inf, or NaN
    proven = distance.exact & ~jnp.isnan(undefined)
    nothing = EMDistance(undefined, undefined, undefined, proven)
    return jax.tree.map(lambda z, r: jnp.where(unit.none, z, r), nothing, ratio)


def _spread_of(pair: Given) -> jax.Array:
    s = _samples.prepare(pair)
    return jnp.where(s.finite, spread_of(s).value(), jnp.nan)


def _relative_of(distance: EMDistance, pair: Given) -> EMDistance:
    return in_spreads(distance, spread_of(_samples.prepare(pair)))


_spread, _relative = compiled(_spread_of), compiled(_relative_of)
