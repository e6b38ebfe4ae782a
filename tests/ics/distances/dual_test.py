import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from unitnorm_jax.ics.distances._dual import dual_lower_bound, pairing_potential

N = 12


@functools.partial(jax.jit, static_argnames="max_iterations")
def bound(cost, potential, max_iterations=0):
    weights = jnp.full((N,), 1 / N)
    if max_iterations:
        potential = pairing_potential(cost, weights, tolerance=1e-6, max_iterations=max_iterations)
    same = jnp.ones((), bool)
    return dual_lower_bound(cost, potential, weights, weights, same, relative=0.0, absolute=0.0)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1.0, 1e3, 1e6]))
def test_any_potential_gives_a_lower_bound(seed, size):
    rng = np.random.default_rng(seed)
    cost = rng.random((N, N)).astype(np.float32)
    rows, columns = linear_sum_assignment(cost)
    optimum = cost.astype(np.float64)[rows, columns].mean()
    assert float(bound(cost, size * rng.normal(size=N).astype(np.float32))) <= optimum


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31))
def test_bellman_ford_closes_the_gap_of_an_optimal_pairing_that_is_not_nearest(seed):
    # Costs of no metric: the optimum is on the diagonal after permuting, rarely row by row.
    cost = np.random.default_rng(seed).random((N, N)).astype(np.float32)
    cost = cost[:, linear_sum_assignment(cost)[1]]
    optimum = np.diagonal(cost).astype(np.float64).mean()
    lower = float(bound(cost, np.zeros(N, np.float32), max_iterations=N))
    assert optimum * (1 - 1e-5) - 1e-6 <= lower <= optimum


def test_more_iterations_are_needed_when_optimal_partners_are_far_from_nearest():
    # Points on a line moved past one another: x_i = i, y_i = i + 3.
    cost = np.abs(np.arange(N)[:, None] - np.arange(N)[None] - 3.5).astype(np.float32)
    zeros = np.zeros(N, np.float32)
    assert float(bound(cost, zeros)) < 3
    assert float(bound(cost, zeros, max_iterations=N)) == pytest.approx(3.5, rel=1e-5)
