"""Exact transport between weighted samples: a linear program on the host, certified in float64."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy import sparse
from scipy.optimize import linprog

from unitnorm_jax.ics.host import call_on_host

_ROUNDS = 60  # of column generation
_NEIGHBOURS = 8  # columns entered per row and per column and round


class TransportBounds(NamedTuple):
    """Bounds for the given cost matrix: ``lower <= optimum <= upper``."""

    lower: Float[Array, ""]
    upper: Float[Array, ""]


def scipy_transport(
    cost: Float[Array, "n m"],
    x_weights: Float[Array, " n"],
    y_weights: Float[Array, " m"],
) -> TransportBounds:
    """Optimal transport cost by scipy's linear programming (HiGHS) on the host.

    ``min <P, C> over P >= 0 with row sums a / sum a and column sums b / sum b``, by column
    generation: solve with the cheapest few partners of every point, price all others with the
    duals, add those that would pay, repeat. Both bounds are evaluated in float64 from the last
    plan and duals (the lemma of `sinkhorn.plan_upper_bound`; the c-transform of
    `dual.dual_lower_bound`), so they hold even where the program was not solved to the end.

    Args:
      cost: Finite costs.
      x_weights: a, nonnegative, not all 0, any sum.
      y_weights: b, likewise.

    Returns:
      Bounds in the dtype of `cost`, rounded outwards; equal to about 1e-7 where solved.

    References:
      G. Dantzig, Application of the simplex method to a transportation problem, 1951;
      Q. Huangfu, J. Hall, Parallelizing the dual revised simplex method, 2018 (HiGHS).
    """
    shape = jax.ShapeDtypeStruct((), cost.dtype)
    return TransportBounds(*call_on_host(_bounds, (shape, shape), cost, x_weights, y_weights))


def _bounds(cost: Any, x_weights: Any, y_weights: Any) -> tuple[np.ndarray, np.ndarray]:
    dtype = np.asarray(cost).dtype
    a, b = (np.asarray(w).astype(np.float64) for w in (x_weights, y_weights))
    rows, columns = a > 0, b > 0
    if not (rows.any() and columns.any()):
        return np.asarray(0, dtype), np.asarray(np.inf, dtype)
    c = np.asarray(cost).astype(np.float64)[np.ix_(rows, columns)]
    a, b = a[rows] / a[rows].sum(), b[columns] / b[columns].sum()
    plan, g = _column_generation(c, a, b)

    f = np.min(c - g[None, :], axis=1)
    g = np.min(c - f[:, None], axis=0)
    margin = 8 * (len(a) + len(b)) * np.finfo(np.float64).eps
    lower = a @ f + b @ g - margin * (a @ np.abs(f) + b @ np.abs(g))

    p = np.asarray(plan.sum(1)).ravel()
    q = np.asarray(plan.sum(0)).ravel()
    short = np.maximum(a - p, 0).sum() + np.maximum(q - b, 0).sum() + margin
    upper = plan.multiply(c).sum() * (1 + margin) + np.max(c) * short

    down, up = np.asarray(max(lower, 0.0), dtype), np.asarray(upper, dtype)
    down, up = np.nextafter(down, dtype.type(0)), np.nextafter(up, dtype.type(np.inf))
    return np.asarray(down), np.asarray(up)


def _column_generation(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[Any, np.ndarray]:
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
    return plan, best_g


def _cheapest(c: np.ndarray) -> np.ndarray:
    chosen = np.zeros(c.shape, bool)
    k, l = (min(_NEIGHBOURS, size) for size in c.shape)  # noqa: E741
    np.put_along_axis(chosen, np.argpartition(c, k - 1, axis=0)[:k], True, axis=0)
    np.put_along_axis(chosen, np.argpartition(c, l - 1, axis=1)[:, :l], True, axis=1)
    return chosen


def _northwest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A feasible support: the monotone coupling of the indices."""
    chosen = np.zeros((len(a), len(b)), bool)
    steps = np.unique(np.concatenate([[0.0], np.cumsum(a), np.cumsum(b)]))
    rows = np.minimum(np.searchsorted(np.cumsum(a), steps, side="right"), len(a) - 1)
    columns = np.minimum(np.searchsorted(np.cumsum(b), steps, side="right"), len(b) - 1)
    chosen[rows, columns] = True
    # Rounding may split a shared breakpoint: the neighbours keep the support feasible.
    chosen[np.maximum(rows - 1, 0), columns] = True
    chosen[rows, np.maximum(columns - 1, 0)] = True
    return chosen
