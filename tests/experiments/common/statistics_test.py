"""Against the formulas, written with the distribution alone, and examples from textbooks."""

import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from experiments.common.statistics import (
    detectable,
    holm,
    largest,
    mean_std,
    median,
    paired,
    quantile,
    smallest,
)


def test_paired_is_the_formula():
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 12):
        a, b = rng.normal(1, 2, n), rng.normal(size=n)
        d = [float(x - y) for x, y in zip(a, b, strict=True)]
        mean, s = statistics.mean(d), statistics.stdev(d)
        half = stats.t.ppf(0.975, n - 1) * s / math.sqrt(n)
        p = 2 * stats.t.sf(abs(mean) / (s / math.sqrt(n)), n - 1)
        found = paired(a, b)
        assert found == pytest.approx((n, mean, mean - half, mean + half, p), rel=1e-10)
        assert paired(b, a).mean == pytest.approx(-mean)
        assert paired(a, b, 0.5).high < found.high


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    draws = rng.normal(0.3, 1.0, (2000, 4))
    inside = [f.low <= 0.3 <= f.high for f in (paired(d, np.zeros(4)) for d in draws)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)  # 3 standard errors


def test_pairing_removes_what_seeds_have_in_common():
    seeds = np.array([-30.0, 0.0, 10.0, 50.0])
    noise = np.array([0.1, -0.1, 0.05, -0.05])
    assert paired(seeds + 1 + noise, seeds).p < 0.001
    assert stats.ttest_ind(seeds + 1 + noise, seeds).pvalue > 0.9


@pytest.mark.parametrize(
    ("values", "base"),
    [([], []), ([1.0], [0.5]), ([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]), ([1.0, math.nan], [0.0, 0.5])],
)
def test_nothing_is_said_without_spread(values, base):
    found = paired(values, base)
    assert found.n == len(values)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert math.isnan(found.p)


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match=r"`values` \(=2 numbers\) and `base` \(=1\) must be as m"):
        paired([1.0, 2.0], [1.0])


def test_mean_std():
    assert mean_std([2.0]) == pytest.approx((2.0, math.nan), nan_ok=True)
    assert mean_std([]) == pytest.approx((math.nan, math.nan), nan_ok=True)
    assert mean_std([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, math.sqrt(7 / 3)))


def test_holm():
    # Step down: 4 x .005, 3 x .01, then the largest so far where a later product is smaller.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([0.02, math.nan, 0.5]) == pytest.approx([0.04, math.nan, 0.5], nan_ok=True)
    assert holm([]) == []
    rng = np.random.default_rng(2)
    null = [min(holm(list(p))) < 0.2 for p in rng.uniform(size=(4000, 5))]
    assert np.mean(null) == pytest.approx(1 - 0.96**5, abs=0.02)  # below 0.2, as promised


def test_finite_numbers_have_the_quantiles_of_numpy():
    values = np.random.default_rng(0).lognormal(size=11)
    for q in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
        assert quantile(values, q) == pytest.approx(np.quantile(values, q), rel=1e-14)


def test_every_order_gives_the_same():
    found = {
        (median(order), quantile(order, 0.75), smallest(order), largest(order))
        for order in itertools.permutations([0.5, 0.9, 1.05, math.inf, math.nan])
    }
    assert found == {((0.9 + 1.05) / 2, math.inf, 0.5, math.inf)}


def test_an_infinite_number_counts_only_where_it_is():
    """Three of four seeds below 1, one in which the base did not move: the median is below 1."""
    assert median([0.5, 0.9, 1.05, math.inf]) == pytest.approx(0.975)
    assert median([0.5, math.inf, math.inf, math.inf]) == math.inf
    assert median([0.5, math.inf]) == math.inf
    assert median([-math.inf, 0.5]) == -math.inf


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_nothing_is_nan(values):
    for statistic in (median, smallest, largest):
        assert math.isnan(statistic(values))


def test_detectable_of_no_spread_and_bad_power():
    assert math.isnan(detectable([0.1, 0.1, 0.1]))
    assert math.isnan(detectable([1.0]))
    with pytest.raises(ValueError, match=r"`power` \(=0.01\) must be between `level` \(=0.05\)"):
        detectable([1.0, 2.0], power=0.01)
