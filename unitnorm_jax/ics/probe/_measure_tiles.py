"""`measure` for layers of as many samples and any dimensions, in one program."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from unitnorm_jax.ics.bounds import _lower
from unitnorm_jax.ics.distances import _rounding, _samples
from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.distances._cascade import EMDistance, Options, better_of, cascade
from unitnorm_jax.ics.distances._line import line_error
from unitnorm_jax.ics.distances._relative import Spread, in_spreads
from unitnorm_jax.ics.distances._samples import mean_error
from unitnorm_jax.ics.distances._side_by_side import costs_alone, side_by_side
from unitnorm_jax.ics.probe._groups import Block
from unitnorm_jax.ics.probe._measure import LOWER, UPPER
from unitnorm_jax.ics.probe._stacked import Stacked
from unitnorm_jax.ics.probe._sums import (
    MAXIMA,
    NUMBERS,
    ROWS,
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
    sums = add_up(tiles)
    distance = _distances(sums, tiles, facts, method, tolerance)
    return _in_units(distance, _closed_forms(sums, tiles, facts), facts, tolerance)


def _distances(
    sums: Sums, tiles: Tiles, facts: Facts, method: str | Solver, tolerance: float | int
) -> jax.Array:
    """Earth Mover distances of scaled samples; only open ones need the costs of all pairs.

    Returns:
        (3, layers): value, lower and upper.
    """
    layers, n, _ = sums.gram.shape
    options = Options(method, tolerance, 16, 0.01, 1000, False)
    quick = nearest_partners(sums, tiles, facts, tolerance)
    always = method in ("scipy", "sinkhorn")
    numbers = jnp.stack(quick[:3])

    def from_costs() -> jax.Array:
        closed = quick.exact & (not always)
        costs, error = costs_of(tiles, ~closed)
        none = facts.same | closed  # Costs of 0, which leave nothing to solve.
        if layers * n**2 <= _SIDE_BY_SIDE and not always:
            found = side_by_side(costs, none, error, method, tolerance)
        else:
            solve = lambda each: cascade(costs_alone(each[0], each[1], error), options)  # noqa: E731
            found = lax.map(solve, (costs, none))
        value, lower, upper = numbers
        best = better_of(EMDistance(value, lower, upper, quick.exact), found, options)
        return jnp.where(closed, numbers, jnp.stack(best[:3]))

    return from_costs() if always else lax.cond(jnp.all(quick.exact), lambda: numbers, from_costs)


class _Closed(NamedTuple):
    """What sums say without a solver, of scaled samples."""

    values: jax.Array
    """(1 + bounds, layers): the spread, `UPPER` and `LOWER`."""
    slacks: jax.Array
    """How far each may be off."""


def _closed_forms(sums: Sums, tiles: Tiles, facts: Facts) -> _Closed:
    """Return what the bounds of `bounds` say, whose names the comments give.

    Each is one of few numbers, up to a linear combination of them: one product for all, where each
    combination would be an operation to compile.
    """
    n, d, dtype = tiles.x.shape[1], max(tiles.dimensions), tiles.dtype
    u, h, depth = _rounding.unit_roundoff(dtype), tiles.height, mean_error(n)
    lost, some = _samples.underflow(d, dtype), _samples.underflow(1, dtype)
    norm, line = h / 2 + 4.5, line_error(n, n, dtype)  # the former as `_samples.norm_error`
    norms = jnp.sqrt(jnp.abs(sums.rows))
    total = norms[:, :1] + norms[:, 1:2]
    product = sums.rows[:, -1:] / jnp.where(total > 0, total, 1)
    terms = jnp.where(np.arange(len(ROWS))[:, None] < len(ROWS) - 1, norms, product)
    centred = sums.rows[:, ROWS.index("x_centred") : ROWS.index("y_centred") + 1]
    # One sum for all: each would be an operation of its own at every level.
    means = jnp.abs(_rounding.tree_sum(jnp.concatenate([terms, centred], axis=1), axis=2)) / n
    means, variances = jnp.split(means, [len(ROWS)], axis=1)
    apart = sums.numbers[:, NUMBERS.index("mean_apart")]
    moments = (variances[:, 0] + variances[:, 1] + apart)[:, None]
    roots = jnp.sqrt(jnp.concatenate([sums.numbers, moments], axis=1))
    paired, x_radius, y_radius = (
        means[:, ROWS.index(name)] for name in ("apart", "x_radius", "y_radius")
    )
    radius = (x_radius + y_radius)[:, None]
    moves = ((paired > 0) | ~facts.same).astype(dtype)[:, None]
    parts = [means, roots, radius, sums.maxima, moves, jnp.ones_like(moves)]
    names = (*ROWS, *NUMBERS, "moments", "radius", *MAXIMA, "moves", "one")
    known = jnp.concatenate(parts, axis=1).T
    at = {f"moment_{p}": _lower.moment_slack(n, p, u) for p in _lower.ORDERS}
    bounds: dict[str, tuple[str, dict[str, float]]] = {
        # `_upper.moment`, `radius`, `pairing`
        "moments": (
            "moments",
            {
                "moments": u * (norm + depth + 2.2 * (depth + 4)),
                "x_offset": 1.1 * u * (depth + 4),
                "y_offset": 1.1 * u * (depth + 4),
                "one": lost,
            },
        ),
        "radius": (
            "radius",
            {"radius": u * (norm + depth + 4), "offset": 2.2 * u, "one": lost},
        ),
        "pairing": ("apart", {"apart": u * (norm + depth + 2), "moves": lost}),
        # `_lower.mean_difference`, `norm_difference`, `moment_difference`, `best_coordinate`
        "mean": (
            "mean_apart",
            {"mean_apart": u * norm, "apart": 1.05 * u * (depth + 2), "one": lost},
        ),
        "norm": ("product", {"apart": 1.05 * u * (h + norm + depth + 5), "one": 2 * lost}),
        **{
            name: (name, {name: 4 * u, "apart": 4 * u * slack, "one": lost})
            for name, slack in at.items()
        },
        "projection": ("coordinate", {"coordinate": line, "one": some}),
        # `_coordinate.together`
        "coordinates": ("coordinates", {"coordinates": line + (h / 2 + 8) * u, "one": lost}),
        # `spread_of`
        "spread": (
            "x_centred",
            {
                "x_centred": u * (norm + 2 * depth + 10),
                "x_offset": u * (depth + 6),
                "one": lost,
            },
        ),
    }
    order = ("spread", *UPPER, *LOWER)
    slacks = np.zeros((len(order), len(names)), dtype)
    for i, name in enumerate(order):
        for part, factor in bounds[name][1].items():
            slacks[i, names.index(part)] = factor
    # A sum of so many products, in any order.
    slacks *= 1 + 2 * len(names) * u
    values = known[np.array([names.index(bounds[name][0]) for name in order])]
    values -= np.array([at.get(name, 0) for name in order], dtype)[:, None] * paired[None, :]
    off = jnp.matmul(slacks, known, precision=lax.Precision.HIGHEST)
    return _Closed(values, off)


def _in_units(
    distance: jax.Array, closed: _Closed, facts: Facts, tolerance: float | int
) -> Stacked:
    """Return all numbers in the units of their layers, bounds rounded outwards.

    All in one array: an operation on one of them takes as long to compile as one on all.
    """
    dtype = distance.dtype
    info, u = jnp.finfo(dtype), _rounding.unit_roundoff(dtype)
    spread = Spread(closed.values[0], closed.slacks[0], facts.exponent, facts.constant)
    # Value, lower and upper, spread, and bounds: `_samples.upper_bound` and `lower_bound`.
    outwards = np.array([0] * 4 + [1] * len(UPPER) + [-1] * len(LOWER), dtype)[:, None]
    slacks = jnp.pad(closed.slacks, ((3, 0), (0, 0)))
    moved = jnp.concatenate([distance, closed.values]) + outwards * slacks
    scaled = jnp.maximum(moved + outwards * u * (4 * slacks + 2 * jnp.abs(moved)), 0)
    exponents = jnp.broadcast_to(-facts.exponent, scaled.shape)
    unscaled = _rounding.normal_times_power_of_two(scaled, exponents)
    # An upper bound is not 0 by underflow, nor a lower one infinite by overflow.
    way = np.array([[0], [-1], [1], *outwards[3:]])
    least = jnp.where(scaled > 0, np.where(way > 0, info.tiny, 0).astype(dtype), 0)
    unscaled = jnp.clip(unscaled, least, np.where(way < 0, info.max, np.inf).astype(dtype))
    scaled, unscaled = lax.optimization_barrier((scaled, unscaled))  # XLA would compute them again.
    value, lower, upper = unscaled[:3]
    finite = facts.finite_before & facts.finite_after
    exact = (upper - lower <= tolerance * upper) & jnp.isfinite(upper) & finite
    found = EMDistance(jnp.clip(value, lower, upper), lower, upper, exact)
    ratio = in_spreads(found, spread, scaled=scaled[:3])
    pairing = unscaled[4 + UPPER.index("pairing")]
    optimal = (pairing - lower <= 2 * tolerance * pairing) & jnp.isfinite(pairing) & finite
    numbers = jnp.concatenate([jnp.stack([*found[:3], *ratio[:3]]), unscaled[3:]])
    flags = [exact, ratio.exact, optimal, facts.finite_before, facts.finite_after]
    return Stacked(jnp.where(finite, numbers, jnp.nan), jnp.stack(flags))
