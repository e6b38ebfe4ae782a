import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax.ics.distances import _rounding

pytestmark = pytest.mark.rounding


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000])
def test_tree_sum_is_within_its_error(n):
    x = np.random.default_rng(n).normal(size=(n, 50)).astype(np.float32)
    error = np.abs(np.asarray(jax.jit(_rounding.tree_sum)(x), np.float64) - x.sum(0, np.float64))
    bound = 1.001 * _rounding.tree_depth(n) * 2.0**-24 * np.abs(x).sum(0, np.float64)
    assert (error <= bound).all()


@pytest.mark.parametrize("steps", [1, 2, 15, 16, 17, 100, 256, 257, 5000, 62500])
def test_loop_levels_cover_all_steps_and_little_more(steps):
    levels = _rounding.loop_levels(steps)
    assert steps <= math.prod(levels) <= 1.3 * steps + 16
    assert sum(levels) <= 68


def test_nested_sum_visits_every_step_once():
    levels = (3, 4, 5)
    visit = lambda k: jax.nn.one_hot(k, 60)  # noqa: E731
    np.testing.assert_array_equal(_rounding.nested_sum(visit, levels, jnp.zeros(60)), np.ones(60))


@pytest.mark.parametrize("largest", [1e-44, 1e-40, 1e-37, 1e-20, 1.0, 3e38])
def test_scaling_is_exact_and_leaves_room_for_squares(largest):
    x = np.float32(largest) * np.linspace(0.3, 1, 7, dtype=np.float32).reshape(1, 7)
    k = _rounding.scale_exponent(jnp.asarray(x), jnp.asarray(-x), 7)
    scaled = _rounding.times_power_of_two(jnp.asarray(x), k)
    np.testing.assert_array_equal(np.asarray(scaled, np.float64), np.ldexp(x.astype(np.float64), k))
    back = np.where(x < np.finfo(x.dtype).tiny, 0, x)  # arithmetic has no subnormal results
    np.testing.assert_array_equal(_rounding.times_power_of_two(scaled, -k), back)
    assert np.isfinite(np.sum(np.square(2 * np.asarray(scaled)), dtype=np.float32))
    assert float(jnp.max(scaled)) > 1e12


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("value", [1e-20, 1.0, -3.0, 1e20])
def test_nudge_moves_at_least_as_far_as_it_says(sign, value):
    value = jnp.float32(value)
    moved = np.float64(_rounding.nudge(value, jnp.abs(value), 3 * sign)) - np.float64(value)
    assert sign * moved >= 3 * 2.0**-24 * abs(np.float64(value))


def test_same_rows_looks_at_bits():
    x = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], np.float32)
    y = np.array([[-0.0, 1.0], [1e-45, 1.0], [0.0, 1.0 + 2**-23]], np.float32)
    assert _rounding.same_rows(jnp.asarray(x), jnp.asarray(y)).tolist() == [True, False, False]
