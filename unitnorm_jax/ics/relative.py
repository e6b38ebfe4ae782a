"""Distances in units of the layer's own spread."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from unitnorm_jax.ics import rounding
from unitnorm_jax.ics.cascade import EMDistance
from unitnorm_jax.ics.samples import as_matrices


@jax.jit
def spread(x: Num[Array | np.ndarray, "n ..."]) -> Float[Array, ""]:
    """The layer's own spread, ``E |x - E x|``: W1 from the sample to its mean.

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
    value, _, k = _spread(x)
    return rounding.times_power_of_two(value, -k)


@jax.jit
def relative(distance: EMDistance, x: Num[Array | np.ndarray, "n ..."]) -> EMDistance:
    """A distance in units of the spread of x: ``W1(x, y) / E |x - E x|``.

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
      spread as well; `exact` as it was. A spread of 0 gives inf, or NaN where the distance is 0.

    Raises:
      ValueError: If x is empty or complex.

    Example:
      >>> import jax.numpy as jnp
      >>> from unitnorm_jax.ics.em_distance import em_distance
      >>> x = jnp.array([[0.0, 0.0], [6.0, 8.0]])
      >>> d = relative(em_distance(x, x + 1.0), x)
      >>> round(float(d.value), 5)
      0.28284

    References:
      Derived here.
    """
    value, error, k = _spread(x)
    unit, above, below = (
        rounding.times_power_of_two(s, -k) for s in (value, value + error, value - error)
    )
    u = 4 * rounding.unit_roundoff(unit.dtype)
    # An error as large as the spread leaves no upper bound.
    upper = jnp.where((below > 0) | (value == 0), distance.upper / below * (1 + u), jnp.inf)
    lower = distance.lower / above * (1 - u)
    return EMDistance(distance.value / unit, lower, upper, distance.exact)


def _spread(x: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The scaled spread, its absolute error, and the exponent k of the scale."""
    x, _ = as_matrices(x, x)
    n, d = x.shape
    k = rounding.scale_exponent(x, x, d)
    x = rounding.times_power_of_two(x, k)
    x = x - x[:1]  # one rounding, so that a large common offset does no harm
    mean = rounding.tree_sum(x) / n
    norms = jnp.sqrt(rounding.tree_sum(jnp.square(x - mean[None, :]).T))  # (n,)
    value = rounding.tree_sum(norms) / n
    offset = jnp.sqrt(rounding.tree_sum(jnp.square(mean)))
    depth = rounding.tree_depth(n)
    units = (depth + 8) * (value + offset) + (rounding.tree_depth(d) / 2 + depth + 10) * value
    return value, units * rounding.unit_roundoff(x.dtype), k
