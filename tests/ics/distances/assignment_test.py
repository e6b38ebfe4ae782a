"""The assignment by scipy, and the potential from which it starts."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from tests.ics.conftest import KINDS
from unitnorm_jax import ics
from unitnorm_jax.ics.distances._assignment import scaling_potential, scipy_assignment
from unitnorm_jax.ics.distances._cascade import _swap_gain

N = 200


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("relation", ["independent", "shifted"])
def test_scaled_costs_have_the_same_optimum(costs, pair, kind, relation):
    cost = costs(*pair(kind, relation, N, 3, 0)).astype(np.float32)
    columns = np.asarray(scipy_assignment(jnp.asarray(cost)))
    np.testing.assert_array_equal(np.sort(columns), np.arange(N))
    whole = cost.astype(np.float64)
    optimum = whole[linear_sum_assignment(whole)].sum()
    assert whole[np.arange(N), columns].sum() == pytest.approx(optimum, rel=1e-12)


def _dual(cost, potential):
    """What a potential of the columns proves: the mean of it and of its best partner."""
    return potential.mean() + (cost - potential).min(axis=1).mean()


def test_potential_is_near_that_of_an_optimal_assignment(costs, pair):
    cost = costs(*pair("gaussian", "independent", N, 16, 0))
    optimum = cost[linear_sum_assignment(cost)].mean()
    potential = np.asarray(scaling_potential(jnp.asarray(cost, jnp.float32)), np.float64)
    gap = optimum - _dual(cost, potential)
    assert 0 <= gap <= 0.1 * (optimum - _dual(cost, cost.min(axis=0)))


def test_potential_is_finite_where_scaling_overflows_or_costs_are_0():
    hub = np.zeros((512, 512), np.float32)
    hub[:100, 1:] = 1  # 100 rows want one column: its scale falls by 100 a step
    np.testing.assert_array_equal(scaling_potential(jnp.asarray(hub)), np.zeros(512))
    x = jnp.ones((N, 2))
    assert ics.em_distance(x, x, method="scipy") == (0, 0, 0, True)


def test_swap_gain_is_that_of_the_best_exchange(costs, pair):
    cost = costs(*pair("gaussian", "independent", 20, 3, 0)).astype(np.float32)
    paired = np.diagonal(cost)
    gain = paired[:, None] + paired[None] - cost - cost.T
    assert float(_swap_gain(jnp.asarray(cost), jnp.asarray(paired))) == gain.max() > 0
