"""Assignment solvers: any callable, or scipy's through a host callback."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from unitnorm_jax.ics.host import call_on_host

Solver = Callable[[jax.Array], Any]


def scipy_assignment(cost: Float[Array, "n n"]) -> Int[Array, " n"]:
    """Optimal permutation by scipy on the host; under `jax.vmap` one call per element.

    ``argmin over permutations s of sum_i C_(i, s_i)``. Runs wherever the backend has host
    callbacks: CPU, GPU and single-host TPU.

    Args:
      cost: Finite costs.

    Returns:
      The column of each row.

    References:
      D. Crouse, On implementing 2D rectangular assignment algorithms, 2016 (scipy's algorithm).
    """
    n = cost.shape[0]
    result = jax.ShapeDtypeStruct((n,), jnp.int32)
    return call_on_host(_solve, result, cost)


def _solve(cost: Any) -> np.ndarray:
    # Offsets of rows and columns change no order of permutations; these halve scipy's time.
    reduced = np.asarray(cost, np.float64)
    reduced = reduced - reduced.min(axis=0)
    reduced -= reduced.min(axis=1, keepdims=True)
    return linear_sum_assignment(reduced)[1].astype(np.int32)


def solve_assignment(solver: Solver, cost: Float[Array, "n n"]) -> Int[Array, " n"]:
    """Run a solver and make certain that a permutation comes back.

    Args:
      solver: Takes the cost matrix (n, n); returns the column of each row (n,), or, as scipy
        and ``optax.assignment.hungarian_algorithm`` do, the pair (rows, columns). Must be
        traceable by JAX (or wrap its own host callback).
      cost: Finite costs.

    Returns:
      The permutation; the identity if what the solver returned is not one, so that whatever it
      does, the coupling is feasible and the upper bound holds.

    Raises:
      ValueError: If the solver's result has the wrong shape.
    """
    n = cost.shape[0]
    result = solver(cost)
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
    """Whether every one of 0..n-1 occurs exactly once."""
    return jnp.all(jnp.sort(columns) == jnp.arange(columns.shape[0], dtype=columns.dtype))


def _shape_message(n: int, *shapes: tuple[int, ...]) -> str:
    got = " and ".join(str(s) for s in shapes)
    return (
        f"`method` must return the column of each row, of shape ({n},), but returned {got}; "
        "return a permutation, or the pair (rows, columns)."
    )
