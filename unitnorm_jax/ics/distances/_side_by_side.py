"""The cascade of many small problems of equal, unweighted samples at once: one program for all."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.ics.distances import _assignment
from unitnorm_jax.ics.distances._cascade import EMDistance, Options, Problem, paired
from unitnorm_jax.ics.distances._cost import CostError


def costs_alone(cost: jax.Array, same: jax.Array, error: CostError) -> Problem:
    """Return the problem of a cost matrix (n, n) whose points are not at hand.

    Args:
        cost: Of scaled points.
        same: Whether all pairs are the same bits.
        error: Of the costs.
    """
    n = len(cost)
    ones, true = jnp.ones_like(cost, shape=(n,)), jnp.ones((), bool)
    known = (CostError(*error), same)
    return Problem(cost, ones / n, ones / n, (ones, ones), true, None, None, known)


def side_by_side(
    costs: jax.Array, same: jax.Array, error: CostError, method: Any, tolerance: float | int
) -> EMDistance:
    """Distances from costs (problems, n, n), in one small operation for all instead of many.

    Args:
        costs: Of scaled points.
        same: Whether all pairs of a problem are the same bits, (problems,): nothing to solve.
        error: Of the costs.
        method: "auto", "pairing" or a solver, as in `em_distance`.
        tolerance: As in `em_distance`.
    """
    n = costs.shape[1]
    options = Options("pairing", tolerance, 16 if method == "pairing" else n, 0.01, 1000, False)
    identity = jnp.arange(n, dtype=jnp.int32)
    solver: Callable[[Any], Any] = _assignment.scipy_assignment if method == "auto" else method

    def partners(each: tuple[jax.Array, jax.Array]) -> jax.Array:
        cost, same = each
        solve = lambda: _assignment.solve_assignment(solver, cost)  # noqa: E731
        return lax.cond(same, lambda: identity, solve)

    def bounds(cost: jax.Array, same: jax.Array, columns: Any) -> EMDistance:
        return paired(costs_alone(cost, same, error), options, columns)

    if method == "pairing":
        return jax.vmap(functools.partial(bounds, columns=None))(costs, same)
    return jax.vmap(bounds)(costs, same, lax.map(partners, (costs, same)))
