"""Quantiles and extremes of numbers that may be NaN or infinite.

A NaN is no measurement and is left out; an infinite number is one, larger than all others. What is
found depends on no order. NaN where nothing is left.
"""

import math
from collections.abc import Iterable

import numpy as np


def quantile(values: Iterable[float], q: float) -> float:
    """Return the quantile, interpolated between neighbours; infinite if one of them is.

    Example:
        >>> quantile([4.0, 1.0, math.inf, 3.0, math.nan], 0.5)
        3.5
    """
    ordered = np.sort(_numbers(values))
    if not len(ordered):
        return math.nan
    place = q * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    if low == high or place == math.floor(place) or math.isinf(low):
        return float(low)
    return float(low + (place - math.floor(place)) * (high - low))


def median(values: Iterable[float]) -> float:
    """Return the median.

    Example:
        >>> median([3.0, math.nan, 1.0])
        2.0
    """
    return quantile(values, 0.5)


def smallest(values: Iterable[float]) -> float:
    """Return the smallest number.

    Example:
        >>> smallest([math.nan, 2.0, 1.0])
        1.0
    """
    return quantile(values, 0.0)


def largest(values: Iterable[float]) -> float:
    """Return the largest number.

    Example:
        >>> largest([math.nan, 2.0, math.inf])
        inf
    """
    return quantile(values, 1.0)


def _numbers(values: Iterable[float]) -> np.ndarray:
    numbers = np.asarray(list(values), np.float64)
    return numbers[~np.isnan(numbers)]
