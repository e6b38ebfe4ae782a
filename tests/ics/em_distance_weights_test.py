"""The distance of weighted samples, and of samples of unequal sizes, against a linear program."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ics.samples import KINDS, RELATIONS, assert_certified, swapped
from unitnorm_jax import ics


@settings(max_examples=60, deadline=None)
@given(
    KINDS,
    RELATIONS,
    st.sampled_from([(6, 4, 3), (5, 5, 2)]),
    st.integers(0, 2**31),
    st.sampled_from([1e-3, 1.0, 1e20]),
    st.sampled_from(["auto", "sinkhorn"]),
)
def test_weighted_certificate(exact_weighted, pair, kind, relation, shape, seed, scale, method):
    n, m, d = shape
    rng = np.random.default_rng(seed)
    x, y = pair(kind, relation, n, d, seed, scale)
    y = y[:m]
    a, b = (rng.random(k).astype(np.float32) for k in (n, m))
    a[0] = 0
    truth = exact_weighted(x, y, a, b)
    distance = ics.em_distance(x, y, a, b, method=method)
    slack = 1e-7 * float(np.max(np.abs(x)))  # HiGHS, in the oracle
    assert float(distance.lower) <= truth + slack
    assert truth - slack <= float(distance.upper)
    if method == "auto":
        diameter = 2 * np.sqrt(d) * max(np.abs(x).max(), np.abs(y).max())
        assert float(distance.upper - distance.lower) <= 1e-5 * truth + 1e-6 * diameter


def test_unequal_sizes_repeat_points(exact, pair):
    x, y = pair("gaussian", "independent", 12, 3, 0)
    distance = ics.em_distance(x[:4], y)
    assert_certified(distance, exact(np.repeat(x[:4], 3, axis=0), y))
    assert bool(distance.exact)


@pytest.mark.parametrize("method", ["auto", "pairing", "sinkhorn"])
def test_masked_points_do_not_matter(exact, pair, method):
    x, y = pair("gaussian", "drift", 12, 3, 0)
    mask = np.arange(12) < 8
    truth = exact(x[mask], y[mask])
    x[~mask], y[~mask] = np.nan, np.inf
    distance = ics.em_distance(x, y, mask, mask, method=method)
    assert_certified(distance, truth)
    assert bool(distance.exact)


def test_equal_weights_keep_the_precision_of_a_tiny_drift(pair):
    x, y = pair("gaussian", "tiny", 12, 3, 0)
    weights = np.random.default_rng(0).random(12).astype(np.float32)
    distance = ics.em_distance(x, y, weights, weights, method="pairing")
    drift = np.linalg.norm(x.astype(float) - y, axis=1)
    truth = np.sum(weights.astype(float) * drift) / np.sum(weights.astype(float))
    assert_certified(distance, truth)
    assert bool(distance.exact)


def test_scaled_weights_are_not_taken_for_other_weights(exact_weighted, pair):
    x, y = pair("gaussian", "independent", 6, 2, 0)
    a = np.array([1, 2, 3, 4, 5, 6], np.float32)
    truth = exact_weighted(x, y, a, a[::-1])
    for weights in ((a, a[::-1]), (2 * a, a[::-1] / 7)):
        assert float(ics.em_distance(x, y, *weights).value) == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("method", ["auto", "sinkhorn"])
def test_improper_weights_give_nan(method):
    x, y = swapped()
    measure = functools.partial(ics.em_distance, x, y, method=method)
    ones = np.ones(3, np.float32)
    for bad in ([0, 0, 0], [1, -1, 1], [1, np.nan, 1], [1, np.inf, 1]):
        weights = np.array(bad, np.float32)
        for distance in (measure(weights, ones), measure(ones, weights)):
            assert np.isnan([distance.value, distance.lower, distance.upper]).all()
            assert not bool(distance.exact)
