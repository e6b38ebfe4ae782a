"""The distance of samples whose cost matrix has been computed."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from unitnorm_jax import ics

KEYS = jax.random.split(jax.random.key(0), 2)
X, Y = (jax.random.normal(key, (12, 3)) for key in KEYS)


@pytest.mark.parametrize("after", [Y, X + 0.01 * Y], ids=["independent", "drift"])
def test_is_the_distance(after):
    costs = ics.cost_matrix(X, after)
    found = jax.jit(ics.em_distance_from_costs)(costs, X, after)
    exact = np.linalg.norm(np.asarray(X, np.float64)[:, None] - np.asarray(after)[None], axis=-1)
    truth = exact[linear_sum_assignment(exact)].mean()
    assert float(found.lower) <= truth <= float(found.upper)
    assert bool(found.exact)
    np.testing.assert_allclose(found.value, ics.em_distance(X, after).value, rtol=1e-6)


@pytest.mark.parametrize("cost", [jnp.inf, jnp.nan])
def test_nothing_is_certified_of_costs_that_are_not_finite(cost):
    """Squares of differences overflow long before differences do."""
    found = ics.em_distance_from_costs(ics.cost_matrix(X, Y).at[2, 3].set(cost), X, Y)
    assert np.isnan([found.value, found.lower, found.upper]).all()
    assert not found.exact


@pytest.mark.parametrize(
    ("costs", "after"), [(jnp.ones((12, 11)), Y), (jnp.ones((12, 12)), Y[:, :2])]
)
def test_shapes_must_fit(costs, after):
    with pytest.raises(ValueError, match=r"`costs` has shape \(12, 11\)|\(12, 3\) and \(12, 2\)"):
        inspect.unwrap(ics.em_distance_from_costs)(costs, X, after)
