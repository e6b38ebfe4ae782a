"""Against the formulas, written with the distribution alone, and examples from textbooks."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from experiments.common.statistics import holm, mean_std, paired


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
