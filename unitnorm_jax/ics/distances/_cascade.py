"""The steps of `em_distance` on scaled points: bounds first, a solver where they do not meet."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from unitnorm_jax.ics.distances import _assignment, _rounding, _transport
from unitnorm_jax.ics.distances._cost import CostError, cost_error
from unitnorm_jax.ics.distances._dual import dual_lower_bound, pair_costs, pairing_potential
from unitnorm_jax.ics.distances._line import line_em_distance, line_error
from unitnorm_jax.ics.distances._sinkhorn import plan_upper_bound, sinkhorn

_LARGE = 256  # points from which a pass over the costs takes longer than a branch
_SOME = 32  # points that tell whether a pairing can be optimal; others cost more than they tell
_LP_SIZE = 2**18  # n m above which "auto" leaves the linear program for Sinkhorn


class EMDistance(NamedTuple):
    """A distance and its certificate: ``lower <= W1 <= upper``."""

    value: Float[Array, ""]
    """Cost of the best coupling found (not widened for rounding), within [lower, upper]."""
    lower: Float[Array, ""]
    """No more than W1: the value of a feasible dual, rounded down."""
    upper: Float[Array, ""]
    """No less than W1: the cost of a feasible coupling, rounded up."""
    exact: Bool[Array, ""]
    """Whether upper - lower <= tolerance * upper."""


class Problem(NamedTuple):
    """Two weighted samples and their cost matrix."""

    cost: jax.Array  # (n, m) distances of the scaled points
    a: jax.Array  # (n,) sum 1
    b: jax.Array  # (m,) sum 1
    raw: tuple[jax.Array, jax.Array]  # the weights as given, (n,) and (m,), or their bits
    same: jax.Array  # () whether the given weights agree, point by point
    x: Any  # (n, d) the points as given, to tell 0 from underflow
    y: Any  # (m, d)
    known: Any = None
    """Where x and y are None: the error of the costs, and whether all pairs are the same bits."""


class Options(NamedTuple):
    """The static arguments of `em_distance`."""

    method: Any
    tolerance: float
    max_iterations: Any
    sinkhorn_epsilon: float
    sinkhorn_iterations: int
    weighted: bool
    bits: tuple[str, str] = ("", "")
    """Dtypes of the weights that JAX does not have and that are handed on as bits."""


def sort_bounds(
    scaled_x: jax.Array, scaled_y: jax.Array, x: jax.Array, y: jax.Array, options: Options
) -> EMDistance:
    """Take step 1: one axis, equal weights. x (n, 1) and y (m, 1), scaled and as given."""
    value = line_em_distance(scaled_x, scaled_y)[0]
    relative = line_error(x.shape[0], y.shape[0], x.dtype)
    absolute = cost_error(1, 1, 1, x.dtype).absolute
    upper = value * (1 + relative) + absolute
    if x.shape == y.shape:
        same = _rounding.same_rows(jnp.sort(x, axis=0), jnp.sort(y, axis=0))
        upper = jnp.where(jnp.all(same), 0, upper)
    lower = jnp.maximum(value * (1 - relative) - absolute, 0)
    return _result(value, lower, upper, options)


def cascade(problem: Problem, options: Options) -> EMDistance:
    """Take steps 2 to 4: bounds without a solver, then a solver if they leave a gap.

    Args:
        problem: The samples.
        options: How to treat them.
    """
    n, m = problem.cost.shape
    method = options.method
    relative, absolute = _error(problem, options)
    result = paired(problem, options) if n == m else _unpaired(problem, options)
    if method == "pairing":
        return result

    def solve(result):
        if method == "sinkhorn" or (options.weighted and method == "auto" and n * m > _LP_SIZE):
            plan, potential = sinkhorn(
                problem.cost,
                problem.a,
                problem.b,
                epsilon=options.sinkhorn_epsilon,
                max_iterations=options.sinkhorn_iterations,
            )
            error = {"relative": relative, "absolute": absolute}
            upper, value = plan_upper_bound(plan, problem.cost, problem.a, problem.b, **error)
            better = EMDistance(value, _lower(problem, potential, options), upper, result.exact)
        elif options.weighted:
            lower, upper, value, moves = _transport.scipy_transport(
                problem.cost, *problem.raw, points=(problem.x, problem.y), bits=options.bits
            )
            lower = _rounding.nudge(lower * (1 - relative), lower, -4) - absolute
            upper = _rounding.nudge(upper * (1 + relative), upper, 4)
            upper += jnp.where(moves, absolute, 0)
            better = EMDistance(value, lower, upper, result.exact)
        else:
            solver = method if callable(method) else _assignment.scipy_assignment
            columns = _assignment.solve_assignment(solver, problem.cost)
            to_the_end = options._replace(method="pairing", max_iterations=n)
            better = paired(problem, to_the_end, columns)
        return better_of(result, better, options)

    if method in ("scipy", "sinkhorn"):
        return solve(result)
    return lax.cond(result.exact, lambda r: r, solve, result)


def better_of(one: EMDistance, other: EMDistance, options: Options) -> EMDistance:
    """Return the best of two certificates."""
    lower = jnp.maximum(one.lower, other.lower)
    upper = jnp.minimum(one.upper, other.upper)
    value = jnp.where(other.upper < one.upper, other.value, one.value)
    return _result(value, lower, upper, options)


def paired(problem: Problem, options: Options, columns: jax.Array | None = None) -> EMDistance:
    """Take steps 2 and 3: the cost of a pairing and its dual bound.

    The pairing is x_i to y_i, or, of unweighted points, x_i to the given columns.
    """
    n = problem.cost.shape[0]
    relative, absolute = _error(problem, options)
    distances = pair_costs(problem.cost, columns)
    units = 2 * _rounding.tree_depth(n) + 12
    value = _rounding.tree_sum(problem.a * distances)
    upper = _rounding.nudge(value * (1 + relative), value, units)

    def differ() -> jax.Array:
        if problem.known is not None:  # Where all pairs are the same, so is W1, 0.
            return ~problem.known[1]
        y = problem.y if columns is None else problem.y[columns]
        return jnp.any(~_rounding.same_rows(problem.x, y) & (problem.a > 0))

    # Samples at a distance that is not 0 do.
    differs = lax.cond(value > 0, lambda: value > 0, differ)
    upper += jnp.where(differs, absolute, 0)
    if options.weighted:
        independent, cost = _independent(problem, relative, absolute)
        kept = problem.same & (upper <= independent)
        upper, value = jnp.where(kept, upper, independent), jnp.where(kept, value, cost)

    def shortest_paths() -> jax.Array:
        # Only where both weights are positive can pairs prove anything; elsewhere potentials are 0.
        weights = jnp.where(problem.b > 0, problem.a, 0) if options.weighted else None
        potential = pairing_potential(
            _masked(problem, options),
            weights,
            tolerance=options.tolerance / 8,
            max_iterations=options.max_iterations,
            columns=columns,
        )
        return _lower(problem, potential, options, columns=columns)

    def proven(lower: jax.Array) -> EMDistance:
        return _result(value, lower, upper, options)

    def search(lower: jax.Array) -> EMDistance:
        if options.method == "pairing" or options.weighted:
            return proven(jnp.maximum(lower, shortest_paths()))
        # A solver follows: where two points had better swap partners, there is nothing to prove.
        provable = proven(value - _swap_gain(problem.cost, distances) / n).exact
        paths = lax.cond(provable, shortest_paths, lambda: jnp.zeros_like(value))
        return proven(jnp.maximum(lower, paths))

    if n < _LARGE or columns is not None:
        return search(jnp.zeros_like(value))
    # After a small update each point is the nearest of its own partner, which proves the pairing:
    # with potentials of 0 on one side, one pass over the costs finds those of the other.
    lower = _lower(_transposed(problem), None, options, raise_columns=False)
    quick = proven(lower)
    return lax.cond(quick.exact, lambda: quick, lambda: search(lower))


def _swap_gain(cost: jax.Array, distances: jax.Array) -> jax.Array:
    """Return the most that swapping partners saves, among pairs with one of the first points."""
    some = cost[:_SOME], cost[:, :_SOME].T
    return jnp.max(distances[:_SOME, None] + distances[None, :] - some[0] - some[1])


def _unpaired(problem: Problem, options: Options) -> EMDistance:
    """Return bounds without a solver: nearest neighbours below, the independent coupling above."""
    upper, value = _independent(problem, *_error(problem, options))
    return _result(value, _lower(problem, _nearest(problem), options), upper, options)


def _nearest(problem: Problem) -> jax.Array:
    """Return the distance from each y_j to the nearest x_i."""
    return jnp.min(jnp.where((problem.a > 0)[:, None], problem.cost, jnp.inf), axis=0)


def _transposed(problem: Problem) -> Problem:
    cost, a, b = problem.cost.T, problem.b, problem.a
    return Problem(cost, a, b, problem.raw[::-1], problem.same, problem.y, problem.x, problem.known)


def _masked(problem: Problem, options: Options) -> jax.Array:
    if not options.weighted:
        return problem.cost
    active = (problem.a > 0)[:, None] & (problem.b > 0)[None, :]
    return jnp.where(active, problem.cost, jnp.inf)


def _independent(problem: Problem, relative: float | int, absolute: float | int):
    plan = problem.a[:, None] * problem.b[None, :]
    error = {"relative": relative, "absolute": absolute}
    return plan_upper_bound(plan, problem.cost, problem.a, problem.b, **error)


def _lower(
    problem: Problem,
    potential: jax.Array | None,
    options: Options,
    raise_columns: bool = True,
    columns: jax.Array | None = None,
) -> jax.Array:
    relative, absolute = _error(problem, options)
    return dual_lower_bound(
        _masked(problem, options),
        potential,
        problem.a if options.weighted else None,
        problem.b if options.weighted else None,
        problem.same,
        relative=relative,
        absolute=absolute,
        raise_columns=raise_columns,
        columns=columns,
    )


def _error(problem: Problem, options: Options) -> CostError:
    """Return the error of the costs; with weights also of masses that underflow."""
    if problem.known is not None:
        return problem.known[0]
    (n, m), dtype = problem.cost.shape, problem.cost.dtype
    relative, absolute = cost_error(n, m, problem.x.shape[1], dtype)
    if options.weighted:  # n masses of the smallest number, over distances of 2^62 / n or less
        absolute += 64 * math.sqrt(float(jnp.finfo(dtype).tiny))
    return CostError(relative, absolute)


def _result(value, lower, upper, options: Options) -> EMDistance:
    lower = jnp.minimum(lower, upper)
    exact = upper - lower <= options.tolerance * upper
    return EMDistance(jnp.clip(value, lower, upper), lower, upper, exact)
