"""All that is measured of one layer: distance, spread and bounds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from unitnorm_jax.ics.bounds import _lower, _upper
from unitnorm_jax.ics.distances import _coordinate, _samples
from unitnorm_jax.ics.distances._cascade import EMDistance
from unitnorm_jax.ics.distances._compiled import compiled
from unitnorm_jax.ics.distances._em_distance import em_distance
from unitnorm_jax.ics.distances._line import line_em_distance
from unitnorm_jax.ics.distances._relative import in_spreads, spread_of
from unitnorm_jax.ics.distances._samples import Given, given

UPPER = ("moments", "radius", "pairing")
LOWER = ("mean", "norm", *(f"moment_{p}" for p in _lower.ORDERS), "projection", "coordinates")


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
    others: dict[str, Float[Array, ""]] | None = None
    """Other measures by name, see ``ICSProbe(measures=...)``."""


def measure(
    x: Shaped[Array | np.ndarray, "n ..."],
    y: Shaped[Array | np.ndarray, "n ..."],
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
        >>> float(m.distance.value), round(float(m.lower["mean"]), 4), bool(m.pairing_optimal)
        (2.0, 2.0, True)
    """
    distance = em_distance(x, y, method=method, tolerance=tolerance)
    return around(distance, x, y, tolerance=tolerance)


def around(
    distance: EMDistance,
    x: Shaped[Array | np.ndarray, "n ..."],
    y: Shaped[Array | np.ndarray, "n ..."],
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
    _upper.check_paired(x, y)
    pair = given(x, y)
    # Norms and moments are those of the numbers given, which a common offset would change.
    moved = pair.x_error is not None or pair.y_error is not None
    plain = given(x, y, centre=False) if moved else None
    return _around(distance, pair, plain, tolerance=tolerance)


def weighted(
    x: jax.Array,
    y: jax.Array,
    *,
    weights: np.ndarray,
    method: str | Callable[[Any], Any] = "auto",
    tolerance: float | int = 1e-5,
) -> Measure:
    """`measure` of weighted samples; of the bounds only that of the pairing, the rest NaN.

    Args:
        x: Before, (n, d).
        y: After, (n, d).
        weights: Of the samples on both sides, (n,), positive.
        method: As in `em_distance`.
        tolerance: As in `em_distance`.
    """
    distance = em_distance(x, y, weights, weights, method=method, tolerance=tolerance)
    s = _samples.prepare(given(x, y))
    shares = weights.astype(np.float64) / weights.astype(np.float64).sum()
    masses = jnp.asarray(shares, s.x.dtype)
    pairing, unit = _upper.pairing(s, masses), spread_of(s, masses)
    before, after = (jnp.all(jnp.isfinite(z)) for z in (s.x, s.y))
    known = lambda b: jnp.where(before & after, b, jnp.nan)  # noqa: E731
    ratio = in_spreads(distance, unit)
    ratio = EMDistance(known(ratio.value), known(ratio.lower), known(ratio.upper), ratio.exact)
    spread = known(unit.value())
    nothing = jnp.full_like(spread, jnp.nan)
    upper, lower = dict.fromkeys(UPPER, nothing), dict.fromkeys(LOWER, nothing)
    optimal = (pairing - distance.lower <= 2 * tolerance * pairing) & jnp.isfinite(pairing)
    upper["pairing"] = known(pairing)
    return Measure(distance, ratio, spread, upper, lower, optimal & before & after, before, after)


def _around_the_distance(
    distance: EMDistance, pair: Given, plain: Given | None, *, tolerance: float | int
) -> Measure:
    s = _samples.prepare(pair)
    t = _samples.prepare(pair if plain is None else plain, centre=False)
    paired, plainly = (_lower.pair_distance(z) for z in (s, t))
    distances = line_em_distance(s.x, s.y)
    pairing = _upper.pairing(s)
    upper = {
        "moments": _upper.moment(s),
        "radius": _upper.radius(s),
        "pairing": pairing,
    }
    lower = {
        "mean": _lower.mean_difference(s, paired),
        "norm": _lower.norm_difference(t, plainly),
        **{f"moment_{p}": _lower.moment_difference(t, plainly, p) for p in _lower.ORDERS},
        "projection": _lower.best_coordinate(s, distances),
        "coordinates": _coordinate.together(s, distances),
    }
    unit = spread_of(s)
    before, after = (jnp.all(jnp.isfinite(z)) for z in (s.x, s.y))
    known = lambda b: jnp.where(before & after, b, jnp.nan)  # noqa: E731
    ratio = in_spreads(distance, unit)
    ratio = EMDistance(known(ratio.value), known(ratio.lower), known(ratio.upper), ratio.exact)
    upper, lower = jax.tree.map(known, (upper, lower))
    optimal = (pairing - distance.lower <= 2 * tolerance * pairing) & jnp.isfinite(pairing)
    spread = known(unit.value())
    return Measure(distance, ratio, spread, upper, lower, optimal & before & after, before, after)


_around = compiled(_around_the_distance, static=("tolerance",))
