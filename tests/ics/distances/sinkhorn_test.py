import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from unitnorm_jax.ics.distances._sinkhorn import plan_upper_bound, sinkhorn

N = 8
upper = jax.jit(functools.partial(plan_upper_bound, relative=0.0, absolute=0.0))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["any", "optimal", "near", "empty", "half", "twice"]))
def test_any_plan_gives_an_upper_bound(seed, kind):
    rng = np.random.default_rng(seed)
    cost = rng.random((N, N)).astype(np.float32)
    weights = np.full(N, 1 / N, np.float32)
    rows, columns = linear_sum_assignment(cost)
    optimum = cost.astype(np.float64)[rows, columns].mean()
    best = np.zeros((N, N), np.float32)
    best[rows, columns] = 1 / N
    plan = {
        "any": rng.normal(size=(N, N)),  # negative entries count as 0
        "optimal": best,
        "near": best * rng.uniform(0.99, 1.01, (N, N)),
        "empty": 0 * best,
        "half": best / 2,
        "twice": best * 2,
    }[kind].astype(np.float32)
    bound = float(upper(plan, cost, weights, weights)[0])
    assert bound >= optimum
    if kind == "optimal":
        assert bound <= optimum + 2e-5
    if kind == "empty":
        assert bound == pytest.approx(cost.max(), rel=1e-4)


def test_sinkhorn_comes_near_the_optimum_with_the_right_marginals():
    rng = np.random.default_rng(0)
    cost = rng.random((N, N)).astype(np.float32)
    weights = np.full(N, 1 / N, np.float32)
    plan, _ = jax.jit(functools.partial(sinkhorn, epsilon=0.01))(cost, weights, weights)
    rows, columns = linear_sum_assignment(cost)
    np.testing.assert_allclose(plan.sum(0), weights, rtol=1e-5)
    np.testing.assert_allclose(plan.sum(1), weights, rtol=1e-5)
    assert float((plan * cost).sum()) == pytest.approx(cost[rows, columns].mean(), rel=0.05)
