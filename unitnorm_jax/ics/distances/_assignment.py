"""Assignment solvers: any callable, or scipy's through a host callback."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from unitnorm_jax.ics.distances._host import call_on_host

Solver = Callable[[jax.Array], Any]

_SCALED_SIZE = 128  # points from which scaling takes less time than it saves
_EPSILON = 0.05  # in units of the mean reduced cost; 0.02 to 0.1 measured 1 to 2 times slower
_STEPS = 20


def scipy_assignment(cost: Float[Array, "n n"]) -> Int[Array, " n"]:
    """Optimal permutation by scipy on the host; under `jax.vmap` one call per element.

    ``argmin over permutations s of sum_i C_(i, s_i)``. Runs wherever the backend has host
    callbacks: CPU, GPU and single-host TPU.

    scipy starts its search from potentials of 0. Offsets of rows and columns change no order of
    permutations, so from 128 points it is given the costs less a nearly optimal potential
    (`scaling_potential`): almost n of them are 0, and the search ends sooner.

    Args:
        cost: Finite costs.

    Returns:
        The column of each row.

    References:
        D. Crouse, On implementing 2D rectangular assignment algorithms, 2016 (scipy's algorithm).
    """
    n = cost.shape[0]
    result = jax.ShapeDtypeStruct((n,), jnp.int32)
    if n < _SCALED_SIZE:
        return call_on_host(_solve, result, cost)
    return call_on_host(_solve_scaled, result, cost, scaling_potential(cost))


def _solve(cost: np.ndarray) -> np.ndarray:
    return linear_sum_assignment(cost)[1].astype(np.int32)


def _solve_scaled(cost: np.ndarray, potential: np.ndarray) -> np.ndarray:
    reduced = np.subtract(cost, potential, dtype=np.float64)  # no order changes by rounding
    reduced -= reduced.min(axis=1, keepdims=True)
    reduced -= reduced.min(axis=0)
    return _solve(reduced)


def scaling_potential(cost: Float[Array, "n n"]) -> Float[Array, " n"]:
    """Potential g of the columns, near that of an optimal assignment, by Sinkhorn's scaling.

    With R the costs less the least of their column, then of their row, and
    ``K_ij = exp(-R_ij / eps)``, eps a twentieth of the mean of R: ``u <- 1 / K v`` and
    ``v <- 1 / K^T u``, twenty times; ``g_j = min_i C_ij + eps log v_j``.

    These are products of a matrix and a vector only: R is 0 somewhere in each row and column, so
    that K needs no logarithms unless twenty steps overflow. Then g is the least of each column.

    Args:
        cost: Finite costs.

    Returns:
        g (n,), finite.

    References:
        M. Cuturi, Sinkhorn distances, 2013.
    """
    least = jnp.min(cost, axis=0)
    reduced = cost - least[None, :]
    reduced -= jnp.min(reduced, axis=1)[:, None]
    epsilon = _EPSILON * jnp.mean(reduced)
    kernel = jnp.exp(-reduced / epsilon)
    step = lambda _, v: 1 / ((1 / (kernel @ v)) @ kernel)  # noqa: E731
    g = least + epsilon * jnp.log(lax.fori_loop(0, _STEPS, step, jnp.ones_like(least)))
    return jnp.where(jnp.all(jnp.isfinite(g)), g, least)


def solve_assignment(solver: Solver, cost: Float[Array, "n n"]) -> Int[Array, " n"]:
    """Run a solver and make certain that a permutation comes back.

    Args:
        solver: Takes the cost matrix (n, n); returns the column of each row (n,), or, as scipy and
            ``optax.assignment.hungarian_algorithm`` do, the pair (rows, columns). Must be traceable
            by JAX (or wrap its own host callback).
        cost: Finite costs.

    Returns:
        The permutation; the identity if what the solver returned is not one, so that whatever it
        does, the coupling is feasible and the upper bound holds.

    Raises:
        ValueError: If the solver's result has the wrong shape.
    """
    n = cost.shape[0]
    result = solver(cost)
    if solver is scipy_assignment:
        return result  # A permutation for certain.
    if isinstance(result, tuple | list):
        if len(result) != 2:
            raise ValueError(
                f"`method` returned {len(result)} arrays; return the column of each row, or "
                "the pair (rows, columns)."
            )
        rows, columns = (jnp.asarray(r) for r in result)
        if rows.shape != (n,) or columns.shape != (n,):
            raise ValueError(_shape_message(n, rows.shape, columns.shape))
        permutation = jnp.full((n,), -1, jnp.int32).at[rows].set(columns.astype(jnp.int32))
    else:
        permutation = jnp.asarray(result)
        if permutation.shape != (n,):
            raise ValueError(_shape_message(n, permutation.shape))
    identity = jnp.arange(n, dtype=jnp.int32)
    return jnp.where(is_permutation(permutation), permutation.astype(jnp.int32), identity)


def is_permutation(columns: Int[Array, " n"]) -> Bool[Array, ""]:
    """Return whether every one of 0..n-1 occurs exactly once."""
    return jnp.all(jnp.sort(columns) == jnp.arange(columns.shape[0], dtype=columns.dtype))


def _shape_message(n: int, *shapes: tuple[int, ...]) -> str:
    got = " and ".join(str(s) for s in shapes)
    return (
        f"`method` must return the column of each row, of shape ({n},), but returned {got}; "
        "return a permutation, or the pair (rows, columns)."
    )
