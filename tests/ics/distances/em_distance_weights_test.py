"""The distance of weighted samples, and of samples of unequal sizes, against a linear program."""

import functools
import inspect
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ics.samples import KINDS, RELATIONS, assert_certified, swapped
from unitnorm_jax import ics

pytestmark = pytest.mark.rounding


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


FAR = 1000.0


def two_points(a, b, far=FAR, **options):
    """Mass that differs must travel from one point to the other."""
    x = np.array([[0, 0], [far, 0]], np.float32)
    return ics.em_distance(x, x.copy(), np.asarray(a), np.asarray(b), **options)


def mass_that_moves(a, b):
    a, b = ([Fraction(float(k)) if isinstance(k, float) else int(k) for k in w] for w in (a, b))
    return float(abs(Fraction(a[0]) / sum(a) - Fraction(b[0]) / sum(b)))


@pytest.mark.parametrize("method", ["auto", "sinkhorn", "pairing"])
@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        ([2**30, 2**30], [2**30 + 32, 2**30 - 32], np.int64),
        ([2**30, 2**30], [2**30 + 32, 2**30 - 32], np.int32),
        ([2**31 - 1, 2**31 - 1], [2**31 - 1, 2**31 - 5], np.int32),
        ([2**62, 2**62], [2**62 + 1, 2**62], np.int64),
        ([2**63, 2**63], [2**63 + 2**50, 2**63], np.uint64),
        ([1 / 3, 1 / 3], [1 / 3 + 1e-9, 1 / 3 - 1e-9], np.float64),
        ([1e200, 1e200], [2e200, 1e200], np.float64),
        ([1.0, 1e-60], [1.0, 1e-50], np.float64),
        ([3e38, 3e38], [3e38, 2e38], np.float32),
        ([1e30, 1e-30], [1e-30, 1e30], np.float32),
        ([60000.0, 60000.0], [60000.0, 30000.0], np.float16),
        ([200, 200], [200, 100], np.uint8),
        ([True, True], [True, False], bool),
    ],
)
def test_weights_of_any_dtype_and_size(a, b, dtype, method):
    a, b = np.array(a, dtype), np.array(b, dtype)
    number = float if a.dtype.kind == "f" else int
    truth = FAR * mass_that_moves([number(k) for k in a], [number(k) for k in b])
    distance = two_points(a, b, method=method)
    assert float(distance.lower) <= truth * (1 + 1e-12)
    assert truth * (1 - 1e-12) <= float(distance.upper)
    if method == "auto" and truth > 1e-12 * FAR:  # the potentials are float64
        assert float(distance.value) == pytest.approx(truth, rel=1e-6)
        assert bool(distance.exact)


def test_equal_weights_of_a_wide_dtype_keep_the_pairing():
    weights = np.array([1 / 3, 1 / 7])
    distance = two_points(weights, weights.copy(), method="pairing")
    assert distance == (0, 0, 0, True)


def test_ratios_that_underflow_reach_far():
    """Of one part in 10^38 and less, over 10^38."""
    distance = two_points([1.0, 1e-38], [1.0, 3e-38], far=1e38)
    truth = 1e38 * mass_that_moves([1.0, 1e-38], [1.0, 3e-38])
    assert float(distance.lower) <= truth <= float(distance.upper)


@pytest.mark.parametrize("far", [1e4, 1e10, 1e20])
@pytest.mark.parametrize("case", ["weights", "unequal", "both"])
def test_a_far_pair_leaves_no_gap(far, case):
    """`value` is the cost of a plan: the mean of the bounds is not."""
    x = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)
    x[:, 0] = np.arange(7)
    y = x + np.float32([0, 0.25])
    x[3] = y[3] = far
    weights = np.arange(1, 8) if case != "unequal" else np.ones(7)
    truth = 0.25 * (1 - weights[3] / weights.sum())
    other = weights * 3 + (weights == 0)
    if case == "weights":
        distance = ics.em_distance(x, y, weights, other)
    else:
        distance = ics.em_distance(x, np.concatenate([y, y]), weights, np.concatenate([other] * 2))
    assert_certified(distance, truth)
    assert bool(distance.exact)
    assert float(distance.value) == pytest.approx(truth, rel=1e-6)


def test_value_is_never_below_the_optimum(exact_weighted):
    rng = np.random.default_rng(0)
    for seed in range(6):
        x, y = rng.normal(size=(2, 5, 3)).astype(np.float32)
        x[0] = y[seed % 5] = 1e6
        a, b = rng.random((2, 5)).astype(np.float32)
        truth = exact_weighted(x, y, a, b)
        for method in ("auto", "sinkhorn"):
            value = float(ics.em_distance(x, y, a, b, method=method).value)
            assert value >= truth * (1 - 1e-6)


@pytest.mark.parametrize("weights", [np.ones(3, complex), np.array(["a", "b", "c"])])
def test_weights_that_are_no_numbers(weights):
    x, y = swapped()
    with pytest.raises(ValueError, match="`x_weights` must be real, but is"):
        inspect.unwrap(ics.em_distance)(x, y, weights, np.ones(3))


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (np.array([1, 2, 3], np.int32), np.array([1, 2, 3], np.float32), True),
        (np.array([True, True, False]), np.array([1, 1, 0], np.int8), True),
        (np.array([2**24 + 1, 1, 1], np.int32), np.array([2.0**24, 1, 1], np.float32), False),
        (np.array([1, 2, 3], np.int32), np.array([1, 2, 4], np.float32), False),
    ],
)
def test_equal_weights_of_two_dtypes_leave_equal_points_where_they_are(a, b, same):
    x = np.array([[0.0], [1.0], [5.0]], np.float32)
    distance = ics.em_distance(x, x, a, b)
    assert (float(distance.upper) == 0) == same
