"""The one-dimensional distance and the lower bounds built on it."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from unitnorm_jax import ics
from unitnorm_jax.ics.distances._line import line_em_distance

KINDS = st.sampled_from(["gaussian", "heavy", "discrete", "degenerate"])
RELATIONS = st.sampled_from(["independent", "drift", "tiny", "permuted", "shifted", "same"])


@pytest.mark.parametrize(
    ("n", "m", "columns"),
    [
        *[(1, 1, 3), (1, 7, 3), (10, 4, 3), (6, 6, 3), (9, 8, 21)],
        *[(1, 1, 21), (9, 9, 21), (16, 16, 17), (40, 40, 21)],  # networks, written out up to 32
    ],
)
def test_line_distance_equals_scipy(n, m, columns):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, columns)), rng.normal(size=(m, columns))
    expected = [wasserstein_distance(x[:, k], y[:, k]) for k in range(columns)]
    np.testing.assert_allclose(
        line_em_distance(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)),
        expected,
        rtol=1e-5,
        atol=1e-6,
    )


@settings(max_examples=100, deadline=None)
@given(
    KINDS,
    RELATIONS,
    st.sampled_from([(1, 3), (16, 2), (12, 30)]),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 1e4]),
)
def test_coordinate_and_sliced_lower_bounds(exact, pair, kind, relation, shape, seed, offset):
    x, y = pair(kind, relation, *shape, seed, 1.0, offset)
    truth = exact(x, y)
    coordinate = ics.coordinate_em_distance(x, y)
    assert float(coordinate.lower) <= truth
    assert float(coordinate.lower) >= float(jnp.max(coordinate.distances)) * (1 - 1e-5)
    sliced = ics.sliced_em_distance(x, y, jax.random.key(seed), num_directions=8)
    assert float(sliced.lower) <= truth
    if relation == "shifted" and kind != "heavy":  # a translation attains both, in full frames
        assert float(coordinate.lower) == pytest.approx(truth, rel=1e-3, abs=1e-3)
        if shape[1] <= 8:
            assert float(sliced.lower) == pytest.approx(truth, rel=1e-3, abs=1e-3)


def test_sliced_constant_is_right_in_expectation(exact, pair):
    x, y = pair("gaussian", "shifted", 10, 5, 0)
    sliced = ics.sliced_em_distance(x, y, jax.random.key(0), num_directions=20000)
    # A translation attains E sliced = c_d W1.
    assert float(sliced.scaled) == pytest.approx(exact(x, y), rel=0.02)
    assert ics.sliced_constant(1) == pytest.approx(1)
    assert ics.sliced_constant(2) == pytest.approx(2 / np.pi)
    assert ics.sliced_constant(10**6) == pytest.approx(np.sqrt(2e-6 / np.pi), rel=1e-5)


def test_a_single_draw_of_the_scaled_value_may_exceed_the_distance():
    # Why `scaled` is no certificate: one direction, along the shift.
    x = jnp.zeros((2, 4))
    y = x + jnp.array([[1.0, 0, 0, 0]])
    draws = [ics.sliced_em_distance(x, y, jax.random.key(i), num_directions=1) for i in range(8)]
    assert max(float(draw.scaled) for draw in draws) > 1
    assert max(float(draw.lower) for draw in draws) <= 1


def test_large_dimension_is_projected_in_blocks(pair):
    x, y = pair("gaussian", "shifted", 4, 5000, 0)
    truth = np.linalg.norm(np.mean(y.astype(float) - x, axis=0))
    sliced = ics.sliced_em_distance(x, y, jax.random.key(0), num_directions=16)
    assert 0.02 * truth < float(sliced.lower) < truth


def test_coordinates_of_trailing_shape_and_unequal_sizes():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, 2, 3)).astype(np.float32) for n in (5, 8))
    distances = ics.coordinate_em_distance(x, y).distances
    assert distances.shape == (2, 3)
    assert float(distances[1, 2]) == pytest.approx(wasserstein_distance(x[:, 1, 2], y[:, 1, 2]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(bad):
    x = np.ones((3, 2), np.float32)
    y = x.copy()
    y[0, 0] = bad
    assert np.isnan(ics.coordinate_em_distance(x, y).lower)
    assert np.isnan(ics.sliced_em_distance(x, y, jax.random.key(0)).lower)


def test_errors():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"`num_directions` \(=0\) must be at least 1; try 64"):
        ics.sliced_em_distance(x, x, jax.random.key(0), num_directions=0)
    for measure in (
        ics.coordinate_em_distance,
        lambda *a: ics.sliced_em_distance(*a, jax.random.key(0)),
    ):
        with pytest.raises(ValueError, match=r"\(3, 2\) and \(3, 1\)"):
            measure(x, x[:, :1])
    with pytest.raises(ValueError, match=r"`x` must hold at least one sample"):
        inspect.unwrap(ics.spread)(x[:0])


@settings(max_examples=60, deadline=None)
@given(KINDS, st.integers(0, 2**31), st.sampled_from([(1e-30, 0.0), (1.0, 0.0), (1.0, 1e4)]))
def test_relative_bounds_hold_and_do_not_depend_on_the_scale(exact, pair, kind, seed, at):
    x, y = pair(kind, "drift", 16, 3, seed, *at)
    wide = x.astype(np.float64)
    spread = np.linalg.norm(wide - wide.mean(0), axis=1).mean()
    truth = exact(x, y)
    relative = ics.relative(ics.em_distance(x, y), x)
    if np.ptp(x, axis=0).max() == 0:
        assert np.isnan(relative.upper) or np.isinf(relative.upper)
        return
    assert float(ics.spread(x)) == pytest.approx(spread, rel=1e-4, abs=0)
    assert float(relative.lower) <= truth / spread * (1 + 1e-14)
    assert float(relative.upper) >= truth / spread * (1 - 1e-14)
    assert float(relative.value) == pytest.approx(truth / spread, rel=1e-4, abs=0)


def test_relative_to_no_spread_at_all():
    x = jnp.ones((3, 2))
    assert float(ics.relative(ics.em_distance(x, x + 1), x).value) == np.inf
    assert np.isnan(float(ics.relative(ics.em_distance(x, x), x).value))
