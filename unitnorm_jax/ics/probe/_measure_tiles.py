"""`measure` for layers of as many samples and any dimensions, in one program."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.ics.bounds import _lower
from unitnorm_jax.ics.distances import _rounding, _samples
from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.distances._cascade import EMDistance, Options, better_of, cascade
from unitnorm_jax.ics.distances._line import line_error
from unitnorm_jax.ics.distances._relative import Spread, in_spreads
from unitnorm_jax.ics.distances._samples import Samples, mean_error
from unitnorm_jax.ics.distances._side_by_side import costs_alone, side_by_side
from unitnorm_jax.ics.probe._groups import Block
from unitnorm_jax.ics.probe._measure import LOWER, UPPER
from unitnorm_jax.ics.probe._stacked import Stacked
from unitnorm_jax.ics.probe._sums import (
    Largest,
    Sums,
    add_up,
    costs_of,
    nearest_partners,
)
from unitnorm_jax.ics.probe._tiles import Facts, Tiles, cut, look, scaled

_SIDE_BY_SIDE = 2**22  # numbers in the cost matrices of layers that are looked at side by side


def fits(block: jax.Array) -> bool:
    """Return whether a block (k, n, d) can be measured here.

    Not integers of more digits than the result, nor single numbers, whose W1 sorting finds.
    """
    floats = jnp.issubdtype(block.dtype, jnp.floating)
    return block.shape[2] > 1 and (floats or block.dtype.itemsize < 4)


def measure_tiles(blocks: Sequence[Block], method: str | Solver, tolerance: float | int) -> Stacked:
    """Measure pairs of blocks (k, n, d) of one n.

    The closed forms are those of `measure`, from sums over tiles of columns; so are the costs, and
    all that follows from them sees (n, n) only. One error bound serves all layers: that of the
    largest dimension.

    Args:
        blocks: Before and after, each of k layers.
        method: As in `em_distance`.
        tolerance: As in `em_distance`.
    """
    tiles = cut(blocks)
    facts = look(tiles)
    tiles = scaled(tiles, facts)
    sums, largest = add_up(tiles)
    distance = _unscaled(_distances(sums, tiles, facts, method, tolerance), facts, tolerance)
    return _closed_forms(distance, sums, largest, tiles, facts, tolerance)


def _distances(
    sums: Sums, tiles: Tiles, facts: Facts, method: str | Solver, tolerance: float | int
) -> EMDistance:
    """Earth Mover distances of scaled samples; only open ones need the costs of all pairs."""
    layers, n, _ = sums.gram.shape
    options = Options(method, tolerance, 16, 0.01, 1000, False)
    quick = nearest_partners(sums, tiles, facts, tolerance)
    always = method in ("scipy", "sinkhorn")

    def from_costs() -> EMDistance:
        closed = quick.exact & (not always)
        costs, error = costs_of(tiles, ~closed)
        none = facts.same | closed  # Costs of 0, which leave nothing to solve.
        if layers * n**2 <= _SIDE_BY_SIDE and not always:
            found = side_by_side(costs, none, error, method, tolerance)
        else:
            solve = lambda each: cascade(costs_alone(each[0], each[1], error), options)  # noqa: E731
            found = lax.map(solve, (costs, none))
        best = better_of(quick, found, options)
        return jax.tree.map(lambda q, b: jnp.where(closed, q, b), quick, best)

    return from_costs() if always else lax.cond(jnp.all(quick.exact), lambda: quick, from_costs)


def _unscaled(result: EMDistance, facts: Facts, tolerance: float | int) -> EMDistance:
    info = jnp.finfo(result.value.dtype)
    finite = facts.finite_before & facts.finite_after

    scaled = jnp.stack([result.value, result.lower, result.upper])
    exponents = jnp.broadcast_to(-facts.exponent, scaled.shape)
    unscaled = jnp.where(scaled > 0, _rounding.times_power_of_two(scaled, exponents), 0)
    value, lower, upper = unscaled
    lower = jnp.minimum(lower, info.max)
    upper = jnp.where(result.upper > 0, jnp.maximum(upper, info.tiny), 0)  # not 0 by underflow
    value = jnp.clip(value, lower, upper)
    closed = (upper - lower <= tolerance * upper) & jnp.isfinite(upper)
    value, lower, upper = (jnp.where(finite, z, jnp.nan) for z in (value, lower, upper))
    return EMDistance(value, lower, upper, closed & finite)


def _closed_forms(
    distance: EMDistance,
    sums: Sums,
    largest: Largest,
    tiles: Tiles,
    facts: Facts,
    tolerance: float | int,
) -> Stacked:
    """Return what the bounds of `bounds` say, whose names the comments give."""
    n, d, dtype = tiles.x.shape[1], max(tiles.dimensions), tiles.x.dtype
    u, h, depth = _rounding.unit_roundoff(dtype), tiles.height, mean_error(n)
    norm_error = h / 2 + 4.5  # as `_samples.norm_error`
    lost = _samples.underflow(d, dtype)
    finite = facts.finite_before & facts.finite_after
    s: Any = Samples(None, None, facts.exponent, None, finite)  # type: ignore[arg-type]
    norms = jnp.sqrt(sums.rows[:, :-1])  # (layers, 6, n), all but the last of `ROWS`
    total = norms[:, 0] + norms[:, 1]
    product = sums.rows[:, -1] / jnp.where(total > 0, total, 1)
    # One sum for all: each would be an operation of its own at every level.
    means = _rounding.tree_sum(jnp.concatenate([norms, product[:, None]], axis=1), axis=2) / n
    roots = jnp.sqrt(sums.numbers)  # (layers, 6), `NUMBERS`
    _, _, paired, centred, x_radius, y_radius, apart = (means[:, i] for i in range(7))
    mean_apart, moments, together, x_offset, y_offset, offset = (roots[:, i] for i in range(6))
    line = line_error(n, n, dtype)
    some = _samples.underflow(1, dtype)
    units = h + norm_error + depth + 5
    below = {
        # `_lower.mean_difference`, `norm_difference`, `moment_difference`, `best_coordinate`
        "mean": (mean_apart, u * (norm_error * mean_apart + 1.05 * (depth + 2) * paired) + lost),
        "norm": (jnp.abs(apart), 1.05 * units * u * paired + 2 * lost),
        **{
            f"moment_{order}": (z := largest.moments[:, i] - at * paired, 4 * u * jnp.abs(z) + lost)
            for i, order in enumerate(_lower.ORDERS)
            for at in (_lower.moment_slack(n, order, u),)
        },
        "projection": (best := largest.coordinate, line * best + some),
        # `_coordinate.together`
        "coordinates": (together, together * (line + (h / 2 + 8) * u) + lost),
    }
    size, radius = x_offset + y_offset + 2 * moments, x_radius + y_radius
    differ = (paired > 0) | ~facts.same
    above = {
        # `_upper.moment`, `radius`, `pairing`
        "moments": (
            moments,
            u * ((norm_error + depth) * moments + 1.1 * (depth + 4) * size) + lost,
        ),
        "radius": (radius, u * ((norm_error + depth + 4) * radius + 2.2 * offset) + lost),
        "pairing": (
            paired,
            (norm_error + depth + 2) * u * paired + jnp.where(differ, lost, 0),
        ),
    }
    lower = _at_once(_samples.lower_bound, s, {name: below[name] for name in LOWER})
    upper = _at_once(_samples.upper_bound, s, {name: above[name] for name in UPPER})
    # `spread_of`
    slack = u * ((depth + 6) * (centred + x_offset) + (norm_error + depth + 4) * centred)
    unit = Spread(centred, slack + lost, facts.exponent, facts.constant)
    known = lambda z: jnp.where(finite, z, jnp.nan)  # noqa: E731
    ratio = in_spreads(distance, unit)
    ratio = EMDistance(known(ratio.value), known(ratio.lower), known(ratio.upper), ratio.exact)
    pairing = upper[UPPER.index("pairing")]
    optimal = (pairing - distance.lower <= 2 * tolerance * pairing) & jnp.isfinite(pairing)
    before, after = facts.finite_before, facts.finite_after
    numbers = jnp.stack([*distance[:3], *ratio[:3], known(unit.value())])
    flags = jnp.stack([distance.exact, ratio.exact, optimal & finite, before, after])
    return Stacked(jnp.concatenate([numbers, upper, lower]), flags)


def _at_once(bound: Any, s: Samples, given: dict[str, tuple[Any, Any]]) -> jax.Array:
    """Return bounds one below the other, from values and slacks (layers,), in one operation."""
    rows = s._replace(
        exponent=jnp.broadcast_to(s.exponent, (len(given), *s.exponent.shape)),
        finite=jnp.broadcast_to(s.finite, (len(given), *s.finite.shape)),
    )
    values, slacks = (jnp.stack(column) for column in zip(*given.values(), strict=True))
    return bound(rows, values, slacks)
