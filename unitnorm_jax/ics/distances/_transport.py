"""Exact transport between weighted samples: a linear program on the host, and its proof."""

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped
from scipy import sparse
from scipy.optimize import linprog

from unitnorm_jax.ics.distances._host import call_on_host
from unitnorm_jax.ics.distances._network_simplex import dual_value, masses, network_simplex

_ROUNDS = 60  # of column generation
_NEIGHBOURS = 8  # columns entered per row and per column and round


class TransportBounds(NamedTuple):
    """Bounds for the given cost matrix: ``lower <= optimum <= upper``."""

    lower: Float[Array, ""]
    upper: Float[Array, ""]
    value: Float[Array, ""]
    """Cost of the plan found, which has the marginals exactly."""
    moves: Bool[Array, ""]
    """Whether the plan takes mass from a point to another one, even at a computed cost of 0."""


class Plan(NamedTuple):
    """The pairs of points that a plan joins: n + m - 1 of them, or fewer and the rest empty."""

    rows: Int[Array, " arcs"]
    columns: Int[Array, " arcs"]
    mass: Float[Array, " arcs"]
    """What each carries; the sum is 1."""


def scipy_transport(
    cost: Float[Array, "n m"],
    x_weights: Shaped[Array, "n ..."],
    y_weights: Shaped[Array, "m ..."],
    *,
    points: tuple[Float[Array, "n d"], Float[Array, "m d"]] | None = None,
    bits: tuple[str, str] = ("", ""),
) -> TransportBounds:
    """Optimal transport cost by scipy's linear programming (HiGHS) on the host.

    ``min <P, C> over P >= 0 with row sums a / sum a and column sums b / sum b``, by column
    generation: solve with the cheapest few partners of every point, price all others with the
    duals, add those that would pay, repeat. Its plan has the marginals to 1e-7 or so, which one
    point far away makes worthless: its support is the start of the simplex method on integer
    masses (`network_simplex`), whose plans have them exactly.

    Both bounds are evaluated from the plan and the duals (the c-transform of
    `dual.dual_lower_bound`), so they hold even where the program was not solved to the end.

    Args:
        cost: Finite costs.
        x_weights: a, nonnegative, not all 0, any sum and any real dtype.
        y_weights: b, likewise.
        points: The rows and columns, to tell equal points from points at a computed distance of 0.
        bits: The dtypes of weights that are given as bits, (n, 2) uint32; else empty.

    Returns:
        Bounds in the dtype of `cost`, rounded outwards; equal to about 1e-7 where solved.

    References:
        G. Dantzig, Application of the simplex method to a transportation problem, 1951;
        Q. Huangfu, J. Hall, Parallelizing the dual revised simplex method, 2018 (HiGHS).
    """
    number, flag = jax.ShapeDtypeStruct((), cost.dtype), jax.ShapeDtypeStruct((), bool)
    bounds = functools.partial(_bounds, bits)
    back = call_on_host(
        bounds, (number, number, number, flag), cost, x_weights, y_weights, *(points or ())
    )
    return TransportBounds(*back)


def scipy_plan(
    cost: Float[Array, "n m"], x_weights: Float[Array, " n"], y_weights: Float[Array, " m"]
) -> Plan:
    """Return an optimal plan, as `scipy_transport` finds it.

    Args:
        cost: Finite costs.
        x_weights: a, nonnegative, not all 0, any sum.
        y_weights: b, likewise.
    """
    arcs = cost.shape[0] + cost.shape[1] - 1
    index = jax.ShapeDtypeStruct((arcs,), np.int32)
    mass = jax.ShapeDtypeStruct((arcs,), cost.dtype)
    return Plan(*call_on_host(_plan, (index, index, mass), cost, x_weights, y_weights))


class _Optimum(NamedTuple):
    """A plan between the points of positive weight, arc by arc, and what it cannot be below."""

    rows: np.ndarray
    columns: np.ndarray
    mass: np.ndarray
    cost: np.ndarray
    lower: float


def _optimum(cost: Any, x_weights: np.ndarray, y_weights: np.ndarray) -> _Optimum:
    rows, columns = (np.flatnonzero(w > 0) for w in (x_weights, y_weights))
    c = np.asarray(cost)[np.ix_(rows, columns)].astype(np.float64)
    supply, demand, total = masses(x_weights[rows], y_weights[columns])
    a, b = (np.array([k / total for k in side]) for side in (supply, demand))
    chosen, plan, g = _column_generation(c, a, b)
    flows, potentials = network_simplex(c, supply, demand, *_support(c, chosen, plan, g))
    lower = max(dual_value(c, supply, demand, total, z) for z in (g, potentials))
    i, j = np.array(list(flows)).T
    mass = np.array([k / total for k in flows.values()])
    return _Optimum(rows[i], columns[j], mass, c[i, j], lower)


def _plan(cost: Any, *weights: Any) -> tuple[np.ndarray, ...]:
    arcs = sum(cost.shape) - 1
    i, j, mass = np.zeros(arcs, np.int32), np.zeros(arcs, np.int32), np.zeros(arcs, cost.dtype)
    if all(_proper(w) for w in weights):
        best = _optimum(cost, *map(np.asarray, weights))
        count = len(best.mass)
        i[:count], j[:count], mass[:count] = best.rows, best.columns, best.mass
    return i, j, mass


def _bounds(bits: tuple[str, str], cost: Any, *rest: Any) -> tuple[np.ndarray, ...]:
    weights = [
        np.ascontiguousarray(w).view(name)[:, 0] if name else np.asarray(w)
        for w, name in zip(rest[:2], bits, strict=True)
    ]
    dtype = np.asarray(cost).dtype
    if not all(_proper(w) for w in weights):
        return _rounded(dtype, 0.0, np.inf, 0.0, True)
    best = _optimum(cost, *weights)
    value = math.fsum(best.mass * best.cost)
    moves = True
    if value == 0 and len(rest) > 2:
        x, y = (np.asarray(z) for z in rest[2:])
        moves = bool((x[best.rows] != y[best.columns]).any())
    margin = 4 * np.finfo(np.float64).eps  # of each product; all of them are nonnegative
    return _rounded(dtype, best.lower, value * (1 + margin), value, moves)


def _proper(w: np.ndarray) -> bool:
    wide = w.astype(np.float64)
    return bool(np.isfinite(wide).all() and (wide >= 0).all() and (wide > 0).any())


def _rounded(
    dtype: np.dtype, lower: float, upper: float, value: float, moves: bool
) -> tuple[np.ndarray, ...]:
    down, up, middle = (np.asarray(z, dtype) for z in (lower, upper, value))
    if down > lower:
        down = np.nextafter(down, dtype.type(0))
    if up < upper:
        up = np.nextafter(up, dtype.type(np.inf))
    return np.asarray(down), np.asarray(up), middle, np.asarray(moves)


def _support(
    c: np.ndarray, chosen: np.ndarray, plan: Any, g: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs, best first: those that carry most, then those that cost least."""
    i, j = np.nonzero(chosen)
    flow = np.asarray(plan[i, j]).ravel()
    reduced = c - g[None, :]
    slack = (reduced - reduced.min(axis=1, keepdims=True))[i, j]
    order = np.lexsort((slack, -flow))
    return i[order], j[order]


def _column_generation(
    c: np.ndarray, a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, Any, np.ndarray]:
    """Return the pairs considered, the last plan and the duals of the columns."""
    n, m = c.shape
    best_g = c.min(0)
    # In units of the nearest-neighbour cost, else HiGHS's absolute tolerance hides small costs.
    unit = b @ best_g + a @ c.min(1)
    unit = unit if unit > 1e-9 * c.max() else max(c.max(), np.finfo(np.float64).tiny)
    scaled, mass = c / unit, max(n, m)
    chosen = _northwest(a, b) | _cheapest(scaled)
    plan = sparse.csr_matrix((n, m))
    marginals = np.concatenate([a, b]) * mass
    for _ in range(_ROUNDS):
        i, j = np.nonzero(chosen)
        k = np.arange(len(i))
        incidence = sparse.csc_matrix(
            (np.ones(2 * len(i)), (np.concatenate([i, n + j]), np.concatenate([k, k])))
        )
        result = linprog(scaled[i, j], A_eq=incidence, b_eq=marginals, method="highs")
        if result.status != 0:
            break
        plan = sparse.csr_matrix((np.maximum(result.x, 0) / mass, (i, j)), shape=(n, m))
        duals = result.eqlin.marginals
        f, g = duals[:n], duals[n:]
        best_g = g * unit
        reduced = scaled - f[:, None] - g[None, :]
        new = _cheapest(reduced) & (reduced < -1e-9) & ~chosen
        if not new.any():
            break
        chosen |= new
    return chosen, plan, best_g


def _cheapest(c: np.ndarray) -> np.ndarray:
    chosen = np.zeros(c.shape, bool)
    k, l = (min(_NEIGHBOURS, size) for size in c.shape)  # noqa: E741
    np.put_along_axis(chosen, np.argpartition(c, k - 1, axis=0)[:k], True, axis=0)
    np.put_along_axis(chosen, np.argpartition(c, l - 1, axis=1)[:, :l], True, axis=1)
    return chosen


def _northwest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a feasible support: the monotone coupling of the indices."""
    chosen = np.zeros((len(a), len(b)), bool)
    steps = np.unique(np.concatenate([[0.0], np.cumsum(a), np.cumsum(b)]))
    rows = np.minimum(np.searchsorted(np.cumsum(a), steps, side="right"), len(a) - 1)
    columns = np.minimum(np.searchsorted(np.cumsum(b), steps, side="right"), len(b) - 1)
    chosen[rows, columns] = True
    # Rounding may split a shared breakpoint: the neighbours keep the support feasible.
    chosen[np.maximum(rows - 1, 0), columns] = True
    chosen[rows, np.maximum(columns - 1, 0)] = True
    return chosen
