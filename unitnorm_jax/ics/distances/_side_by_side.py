"""The cascade of many small problems of equal, unweighted samples at once: one program for all."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.ics.distances import _assignment
from unitnorm_jax.ics.distances._cascade import EMDistance, Options, Problem, better_of, paired
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


class _State(NamedTuple):
    round: jax.Array
    result: EMDistance


def side_by_side(
    costs: jax.Array, same: jax.Array, error: CostError, method: Any, tolerance: float | int
) -> EMDistance:
    """Distances from costs (problems, n, n), in one small operation for all instead of many.

    Two rounds of one program: the samples as they are paired, and, where that is not proven
    optimal for all, the pairings of a solver, which sees only the problems that are open.

    Args:
        costs: Of scaled points.
        same: Whether all pairs of a problem are the same bits, (problems,).
        error: Of the costs.
        method: "auto", "pairing" or a solver, as in `em_distance`.
        tolerance: As in `em_distance`.
    """
    problems, n, _ = costs.shape
    options = Options("pairing", tolerance, 16, 0.01, 1000, False)
    identity = jnp.arange(n, dtype=jnp.int32)
    solver: Callable[[Any], Any] = _assignment.scipy_assignment if method == "auto" else method

    def partners(each: tuple[jax.Array, jax.Array]) -> jax.Array:
        cost, exact = each
        solve = lambda: _assignment.solve_assignment(solver, cost)  # noqa: E731
        return lax.cond(exact, lambda: identity, solve)

    def step(state: _State) -> _State:
        first = state.round == 0
        columns = jnp.broadcast_to(identity, (problems, n))
        if method != "pairing":
            solved = lambda: lax.map(partners, (costs, state.result.exact))  # noqa: E731
            columns = lax.cond(first, lambda: columns, solved)
        some = options._replace(max_iterations=jnp.where(first, options.max_iterations, n))

        def bounds(cost: jax.Array, same: jax.Array, columns: jax.Array) -> EMDistance:
            return paired(costs_alone(cost, same, error), some, columns)

        found = jax.vmap(bounds)(costs, same, columns)
        return _State(state.round + 1, better_of(state.result, found, options))

    def open_yet(state: _State) -> jax.Array:
        rounds = 1 if method == "pairing" else 2
        return (state.round < rounds) & ((state.round == 0) | ~jnp.all(state.result.exact))

    zeros = jnp.zeros_like(costs, shape=(problems,))
    unknown = EMDistance(zeros, zeros, zeros + jnp.inf, zeros > 0)
    return lax.while_loop(open_yet, step, _State(jnp.zeros((), jnp.int32), unknown)).result
