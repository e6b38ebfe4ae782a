"""Sinkhorn in the log domain: nearly optimal potentials and plan, for any sizes and weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from unitnorm_jax.ics.distances import _rounding


class Transport(NamedTuple):
    """What a transport solver returns: a plan, and a potential of the columns."""

    plan: Float[Array, "n m"]
    potential: Float[Array, " m"]


class _State(NamedTuple):
    f: jax.Array  # (n,)
    g: jax.Array  # (m,)
    epsilon: jax.Array  # ()
    error: jax.Array  # () how far the plan's columns are from b, in total mass
    iteration: jax.Array  # ()


def sinkhorn(
    cost: Float[Array, "n m"],
    x_weights: Float[Array, " n"],
    y_weights: Float[Array, " m"],
    *,
    epsilon: float | int = 0.01,
    max_iterations: int = 1000,
) -> Transport:
    """Entropic optimal transport, epsilon annealed, the plan rounded to the marginals.

    ``f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps)`` and the same for g, in turn, with eps
    falling from the mean cost by 0.9 an iteration to ``epsilon`` times the mean cost, until the
    plan ``a_i b_j exp((f_i + g_j - C_ij) / eps)`` has the column sums b to 1e-3 in mass. Rows
    and columns with too much are scaled down, the missing mass is added as a rank-one plan.

    Args:
        cost: Finite costs.
        x_weights: a (n,), nonnegative, sum 1; zeros allowed.
        y_weights: b (m,), likewise.
        epsilon: Final regularisation, in units of the mean cost: smaller is nearer to the optimum
            and slower.
        max_iterations: Bound on the iterations.

    Returns:
        Plan (n, m) and potential g (m,). Neither is exact; `em_distance` certifies what they prove.

    References:
        M. Cuturi, Sinkhorn distances, 2013; J. Altschuler, J. Weed, P. Rigollet, Near-linear time
        approximation algorithms for optimal transport via Sinkhorn iteration, 2017 (the rounding).
    """
    log_a, log_b = jnp.log(x_weights), jnp.log(y_weights)  # -inf where masked
    mean = x_weights @ (cost @ y_weights)
    tiny = jnp.finfo(cost.dtype).tiny
    final = jnp.maximum(epsilon * mean, tiny)
    softmin = lambda z, axis: -jax.nn.logsumexp(z, axis=axis)  # noqa: E731

    def step(state):
        eps = jnp.maximum(state.epsilon * 0.9, final)
        f = eps * softmin(log_b[None, :] + (state.g[None, :] - cost) / eps, 1)
        scores = log_a[:, None] + (f[:, None] - cost) / eps  # (n, m)
        mass = jnp.exp(state.g / eps + jax.nn.logsumexp(scores, axis=0))  # columns of the plan / b
        error = jnp.sum(y_weights * jnp.abs(mass - 1))
        return _State(f, eps * softmin(scores, 0), eps, error, state.iteration + 1)

    def running(state):
        settled = (state.epsilon <= final) & (state.error < 1e-3)
        return ~settled & (state.iteration < max_iterations)

    # As the costs, they vary over the axes of `jax.shard_map`.
    zeros = jnp.zeros_like(cost[:, 0]), jnp.zeros_like(cost[0])
    infinity = jnp.full_like(mean, jnp.inf)
    start = _State(*zeros, jnp.maximum(mean, tiny), infinity, jnp.zeros((), jnp.int32))
    f, g, eps, _, _ = lax.while_loop(running, step, start)
    scores = (f[:, None] + g[None, :] - cost) / eps
    plan = x_weights[:, None] * jnp.exp(scores) * y_weights[None, :]
    return Transport(_round(plan, x_weights, y_weights), g)


def _round(plan: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    tiny = jnp.finfo(plan.dtype).tiny
    rows = jnp.minimum(a / jnp.maximum(jnp.sum(plan, 1), tiny), 1)
    plan = plan * rows[:, None]
    columns = jnp.minimum(b / jnp.maximum(jnp.sum(plan, 0), tiny), 1)
    plan = plan * columns[None, :]
    missing_a = jnp.maximum(a - jnp.sum(plan, 1), 0)
    missing_b = jnp.maximum(b - jnp.sum(plan, 0), 0)
    total = jnp.maximum(jnp.sum(missing_a), tiny)
    return plan + missing_a[:, None] * (missing_b / total)[None, :]


def plan_upper_bound(
    plan: Float[Array, "n m"],
    cost: Float[Array, "n m"],
    x_weights: Float[Array, " n"],
    y_weights: Float[Array, " m"],
    *,
    relative: float | int,
    absolute: float | int,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Certified upper bound on the optimal transport cost from any nonnegative plan.

    ``W1 <= <P, C> + D ( sum_i (a_i - p_i)+ + sum_j (q_j - b_j)+ )``, p and q the row and column
    sums of P, D the largest cost. Proof (derived here): scale rows and columns of P down where
    they exceed a and b, which removes at most sum (p - a)+ + sum (q - b)+ of mass and raises no
    cost; complete it to a coupling with a rank-one plan whose mass is
    1 - sum P + sum (p - a)+ + sum (q - b)+ = sum (a - p)+ + sum (q - b)+, at D per unit at most.

    So the plan need not be feasible, and the rounding of its sums enters only as D times a few u.

    Args:
        plan: P (n, m), negative or NaN entries are taken for 0.
        cost: Computed distances, finite, used where both weights are positive.
        x_weights: a (n,).
        y_weights: b (m,).
        relative: Relative error of `cost`.
        absolute: Absolute error of `cost`.

    Returns:
        The bound, and ``<P, C>`` itself (not widened).
    """
    n, m = cost.shape
    active = (x_weights > 0)[:, None] & (y_weights > 0)[None, :]
    plan = jnp.where(active & (plan > 0), plan, 0)
    cost = jnp.where(active, cost, 0)
    u = _rounding.unit_roundoff(cost.dtype)
    depth = _rounding.tree_depth(n) + _rounding.tree_depth(m) + 12
    p = _rounding.tree_sum(plan.T)  # (n,)
    q = _rounding.tree_sum(plan)  # (m,)
    moved = _rounding.tree_sum(_rounding.tree_sum(plan * cost))
    short = _rounding.tree_sum(jnp.maximum(x_weights - p, 0))
    short += _rounding.tree_sum(jnp.maximum(q - y_weights, 0))
    mass = 2 + _rounding.tree_sum(p) + _rounding.tree_sum(q)
    widened = moved * (1 + relative + depth * u)
    repair = jnp.max(cost) * (1 + relative) * (short + 2 * depth * u * mass) * (1 + depth * u)
    bound = _rounding.nudge(widened + repair, widened + repair, 4) + absolute
    return bound, moved
