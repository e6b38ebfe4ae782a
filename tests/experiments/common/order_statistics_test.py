"""NaN left out, infinite numbers kept, in any order: against sorting by hand, and numpy."""

import doctest
import itertools
import math

import numpy as np
import pytest

from experiments.common import order_statistics
from experiments.common.order_statistics import largest, median, quantile, smallest


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


def test_docstring_examples():
    failed, attempted = doctest.testmod(order_statistics)
    assert attempted >= 4
    assert failed == 0
