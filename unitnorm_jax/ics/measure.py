"""All that is measured of one layer: distance, spread and bounds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from unitnorm_jax.ics.cascade import EMDistance
from unitnorm_jax.ics.coordinate import coordinate_em_distance
from unitnorm_jax.ics.em_distance import em_distance
from unitnorm_jax.ics.lower_bounds import mean_lower_bound, moment_lower_bound, norm_lower_bound
from unitnorm_jax.ics.relative import relative, spread
from unitnorm_jax.ics.upper_bounds import (
    moment_upper_bound,
    pairing_upper_bound,
    radius_upper_bound,
)

_ORDERS = (2, 3, 4)  # of L3


class Measure(NamedTuple):
    """The shift between paired samples of one layer; units of the layer's output."""

    distance: EMDistance
    """W1 with its certificate."""
    relative: EMDistance
    """The same in units of the spread."""
    spread: Float[Array, ""]
    """``E |x - E x|`` before the update."""
    upper: dict[str, Float[Array, ""]]
    """Closed-form upper bounds: moments (U1), radius (U2), pairing (U3)."""
    lower: dict[str, Float[Array, ""]]
    """Closed-form lower bounds: mean (L1), norm (L2), moment_2 to moment_4 (L3), projection
    (L4, best coordinate), coordinates (all coordinates together)."""
    pairing_optimal: Bool[Array, ""]
    """Whether the pairing of each sample with itself is proven an optimal coupling: it costs at
    most (1 + 2 tolerance) times the certified lower bound, about."""
    finite_before: Bool[Array, ""]
    """Whether all of the samples before are finite."""
    finite_after: Bool[Array, ""]
    """Whether all of the samples after are finite."""


def measure(
    x: Num[Array | np.ndarray, "n ..."],
    y: Num[Array | np.ndarray, "n ..."],
    *,
    method: str | Callable[[Any], Any] = "auto",
    tolerance: float | int = 1e-5,
) -> Measure:
    """Measure the shift between two paired samples, and bound it.

    Args:
      x: Before, (n, ...).
      y: After, (n, ...), of the same inputs in the same order.
      method: As in `em_distance`.
      tolerance: As in `em_distance`.

    Returns:
      `Measure`; every number is NaN if a number in x or y is not finite.

    Raises:
      ValueError: If shapes do not match, or samples are empty or complex.

    Example:
      >>> import jax.numpy as jnp
      >>> m = measure(jnp.zeros((3, 4)), jnp.ones((3, 4)))
      >>> float(m.distance.value), float(m.lower["mean"]), bool(m.pairing_optimal)
      (2.0, 2.0, True)
    """
    distance = em_distance(x, y, method=method, tolerance=tolerance)
    return around(distance, x, y, tolerance=tolerance)


def around(
    distance: EMDistance,
    x: Num[Array | np.ndarray, "n ..."],
    y: Num[Array | np.ndarray, "n ..."],
    *,
    tolerance: float | int = 1e-5,
) -> Measure:
    """`measure` with the distance given: all that needs no solver, and so can be batched.

    Args:
      distance: ``em_distance(x, y)``.
      x: As in `measure`.
      y: As in `measure`.
      tolerance: As in `em_distance`.

    Returns:
      As `measure`.
    """
    pairing = pairing_upper_bound(x, y)
    upper = {
        "moments": moment_upper_bound(x, y),
        "radius": radius_upper_bound(x, y),
        "pairing": pairing,
    }
    coordinates, together = coordinate_em_distance(x, y)
    lower = {
        "mean": mean_lower_bound(x, y),
        "norm": norm_lower_bound(x, y),
        **{f"moment_{p}": moment_lower_bound(x, y, order=p) for p in _ORDERS},
        "projection": jnp.max(coordinates),
        "coordinates": together,
    }
    before, after = (jnp.all(jnp.isfinite(z)) for z in (x, y))
    unit, ratio, upper, lower = jax.tree.map(
        lambda b: (
            jnp.where(before & after, b, jnp.nan) if jnp.issubdtype(b.dtype, jnp.floating) else b
        ),
        (spread(x), relative(distance, x), upper, lower),
    )
    optimal = pairing - distance.lower <= 2 * tolerance * pairing
    return Measure(distance, ratio, unit, upper, lower, optimal & before & after, before, after)
