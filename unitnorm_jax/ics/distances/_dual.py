"""Lower bounds from dual potentials: Bellman-Ford for a given pairing, and their certificate."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from unitnorm_jax.ics.distances import _rounding


class _State(NamedTuple):
    potential: jax.Array  # (n,) g, nonincreasing
    best: jax.Array  # (n,) the g with the smallest decrease so far
    decrease: jax.Array  # () mean g - mean g_next of `best`: bounds the gap it leaves
    last: jax.Array  # () the latest decrease
    iteration: jax.Array  # ()


def pairing_potential(
    cost: Float[Array, "n n"],
    weights: Float[Array, " n"] | None,
    *,
    tolerance: float | int,
    max_iterations: int | Int[Array, ""],
    columns: Int[Array, " n"] | None = None,
) -> Float[Array, " n"]:
    """Potential g that proves a pairing optimal, if it is: x_i with y_i, or with y_(s_i).

    ``g_j <- min_i ( C_ij - (C_ii - g_i) )`` from ``g_j = min_i C_ij``: shortest paths in the
    graph whose arc i -> j costs C_ij - C_ii. A fixed point exists if and only if there is no
    negative cycle, that is no cyclic exchange of partners that lowers the cost: if and only if
    the pairing is optimal. (Another pairing s: C_(i, s_i) and g_(s_i) for C_ii and g_i.)

    Stopping early is sound. With g' the next iterate, g'_j <= C_ij - C_ii + g_i for all i, j,
    so ``f_i = min_j (C_ij - g'_j) >= C_ii - g_i`` and the gap left by (f, g') is at most
    ``mean (g - g')``. The iterate with the smallest such decrease is kept (derived here).

    Args:
        cost: Distances, C_ii that of the pairs; +inf where a row or column is masked out.
        weights: Nonnegative, sum 1; 0 for masked rows. None: 1/n each.
        tolerance: Stop when mean (g - g') is below this part of mean C_ii.
        max_iterations: Bound on the iterations; n suffice for the exact fixed point.
        columns: s, the partner of each row; default the identity. With it, nothing may be masked.

    Returns:
        g (n,), 0 where masked.

    References:
        R. Bellman, On a routing problem, 1958; M. Klein, A primal method for minimal cost flows,
        1967 (negative cycles). The stopping rule: derived here.
    """
    pair = (lambda g: g) if columns is None else (lambda g: g[columns])
    paired = _used(weights, pair_costs(cost, columns))
    target = tolerance * _rounding.tree_sum(_weighed(weights, paired))

    def update(potential):  # (n,) -> (n,)
        arcs = _used(weights, pair(potential) - paired, jnp.inf)
        shortest = jnp.min(cost + arcs[:, None], axis=0)
        return _used(weights, jnp.minimum(potential, shortest))

    def step(state):
        potential = update(state.potential)
        decrease = _rounding.tree_sum(_weighed(weights, state.potential - potential))
        better = decrease < state.decrease
        best = jnp.where(better, potential, state.best)
        least = jnp.minimum(decrease, state.decrease)
        return _State(potential, best, least, decrease, state.iteration + 1)

    start = _used(weights, jnp.min(cost, axis=0))
    infinity = jnp.full_like(target, jnp.inf)
    state = _State(start, start, infinity, infinity, jnp.zeros((), jnp.int32))
    running = lambda s: (s.last > target) & (s.iteration < max_iterations)  # noqa: E731
    return lax.while_loop(running, step, state).best


def pair_costs(
    cost: Float[Array, "n n"], columns: Int[Array, " n"] | None = None
) -> Float[Array, " n"]:
    """C_ii, or C_(i, s_i) where `columns` (s) are given."""
    if columns is None:
        return jnp.diagonal(cost)
    return jnp.take_along_axis(cost, columns[:, None], axis=1)[:, 0]


def dual_lower_bound(
    cost: Float[Array, "n m"],
    potential: Float[Array, " m"] | None,
    x_weights: Float[Array, " n"] | None,
    y_weights: Float[Array, " m"] | None,
    same_weights: Bool[Array, ""],
    *,
    relative: float | int,
    absolute: float | int,
    raise_columns: bool = True,
    columns: Int[Array, " n"] | None = None,
) -> Float[Array, ""]:
    """Certified lower bound on the optimal transport cost from any potential g.

    ``f_i = min_j (L_ij - g_j)``, ``g_j = min_i (L_ij - f_i)``, bound ``sum a f + sum b g``, where
    L = (1 - relative) C is below the true distances. By weak duality every pair with
    f_i + g_j <= L_ij bounds the optimum below; f is the best partner of g, the second step can
    only raise g (and costs as much as the first). Each step rounds down: a minimum of numbers
    fl(z) is lowered by 2 u of its size, more than z can lie below fl(z). In the final sum
    f_i + g_i is added first where both sides have the same weights, so that potentials of either
    sign do not swamp a small distance.

    Args:
        cost: Computed distances; +inf where masked.
        potential: g, arbitrary finite numbers; quality depends on it, validity does not. None: 0,
            with one pass over the costs less.
        x_weights: a, nonnegative, sum 1 up to rounding. None: 1/n each.
        y_weights: b, likewise.
        same_weights: Whether a and b are the same numbers before they were normalised.
        relative: Relative error of `cost` (`cost.cost_error`).
        absolute: Absolute error of `cost`.
        raise_columns: Whether to take the second step.
        columns: s (n,), default the identity: f_i and g_(s_i) are added first.

    Returns:
        The bound, at least 0.

    References:
        L. Kantorovich, On the translocation of masses, 1942 (duality). Rounding: derived here.
    """
    n, m = cost.shape
    u = _rounding.unit_roundoff(cost.dtype)
    shrink = 1 - relative - 4 * u
    below = cost * shrink

    def lowered(minimum, weights):
        return _used(weights, _rounding.nudge(minimum, jnp.abs(minimum), -2))

    if potential is None:  # Rounding is monotonic: the least product is that of the least cost.
        g = jnp.zeros_like(cost[0])
        f = lowered(jnp.min(cost, axis=1) * shrink, x_weights)
    else:
        g = _used(y_weights, potential)
        f = lowered(jnp.min(below - g[None, :], axis=1), x_weights)
    if raise_columns:
        g = lowered(jnp.min(below - f[:, None], axis=0), y_weights)

    # Sums of weight * value, with the error of weights, products and sum.
    def sums(*terms: jax.Array) -> jax.Array:  # (terms, 2): of values and of sizes
        both = [z for term in terms for z in (term, jnp.abs(term))]
        return _rounding.tree_sum(jnp.stack(both, axis=1)).reshape(-1, 2)

    def certified(sum_and_size: jax.Array) -> jax.Array:
        units = 2 * _rounding.tree_depth(max(n, m)) + 12
        return _rounding.nudge(sum_and_size[0], sum_and_size[1], -units)

    if n == m:
        partners = g if columns is None else g[columns]
        of_rows, of_columns, paired = sums(
            _weighed(x_weights, f), _weighed(y_weights, g), _weighed(x_weights, f + partners)
        )
        bound = certified(of_rows + of_columns)
        bound = jnp.where(same_weights, jnp.maximum(bound, certified(paired)), bound)
    else:
        bound = certified(sums(_weighed(x_weights, f))[0] + sums(_weighed(y_weights, g))[0])
    return jnp.maximum(bound - absolute, 0)


def _used(weights: jax.Array | None, values: jax.Array, otherwise: float = 0) -> jax.Array:
    """Return the values, of those that have no weight another."""
    return values if weights is None else jnp.where(weights > 0, values, otherwise)


def _weighed(weights: jax.Array | None, values: jax.Array) -> jax.Array:
    return values / len(values) if weights is None else weights * values
