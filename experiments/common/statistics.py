"""Statistics of runs: mean and deviation over seeds, paired differences, quantiles and extremes.

To quantiles and extremes a NaN is no measurement and is left out; an infinite number is one, larger
than all others. What they find depends on no order, and is NaN where nothing is left.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import integrate, optimize, special, stats


class Paired(NamedTuple):
    """Mean of paired differences, with its confidence interval and Student's paired t-test.

    Attributes:
        n: Number of pairs.
        mean: Mean of the differences.
        low: Lower end of the confidence interval of the mean; NaN if nothing can be said: with
            fewer than two pairs, or if all differences are equal.
        high: Upper end.
        p: Two-sided p-value of the hypothesis that the expected difference is 0; NaN likewise.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float


def mean_std(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Return mean and sample standard deviation (n - 1); NaN where there are too few values.

    Example:
        >>> mean_std([1.0, 2.0, 3.0])
        (2.0, 1.0)
    """
    mean = float(np.mean(values)) if len(values) else math.nan
    with np.errstate(invalid="ignore"):  # Infinite numbers have no deviation.
        return mean, float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def paired(
    values: Sequence[float] | np.ndarray,
    base: Sequence[float] | np.ndarray,
    confidence: float = 0.95,
) -> Paired:
    """Compare paired numbers: ``d_i = values_i - base_i``, one for each seed.

    ``mean d +- t_{n-1} s / sqrt(n)``, with s the sample standard deviation of d: the differences
    are taken as normally distributed, and seeds as a sample of all seeds.

    Args:
        values: One number per seed.
        base: The same of the base, in the same order.
        confidence: Of the interval.

    Raises:
        ValueError: If there are not as many of both.

    Example:
        >>> found = paired([5.0, 7.0, 9.0], [4.0, 5.0, 6.0])
        >>> found.mean, round(found.low, 3), round(found.high, 3), round(found.p, 4)
        (2.0, -0.484, 4.484, 0.0742)
    """
    if len(values) != len(base):
        raise ValueError(
            f"`values` (={len(values)} numbers) and `base` (={len(base)}) must be as many: one "
            "pair for each seed."
        )
    with np.errstate(invalid="ignore"):
        differences = np.asarray(values, np.float64) - np.asarray(base, np.float64)
    n, mean = len(differences), mean_std(differences)[0]
    # Equal differences have no spread to judge by (three times "the same evaluation", say).
    if n < 2 or not np.isfinite(differences).all() or np.ptp(differences) <= 1e-12 * abs(mean):
        return Paired(n, mean, math.nan, math.nan, math.nan)
    result = stats.ttest_1samp(differences, 0.0)
    low, high = result.confidence_interval(confidence)
    return Paired(n, mean, float(low), float(high), float(result.pvalue))


def detectable(
    differences: Sequence[float] | np.ndarray, power: float = 0.8, level: float = 0.05
) -> float:
    """Return the difference that Student's paired t-test finds with a probability of ``power``.

    The smallest ``delta`` with ``P(|T| > t) = power``, where ``T`` has the noncentral t
    distribution of ``n - 1`` degrees of freedom and noncentrality ``delta sqrt(n) / s``, and ``t``
    the quantile of the central one. The sample standard deviation s stands for the true one, so
    that of few seeds the figure itself is uncertain.

    Args:
        differences: One number per seed.
        power: In (level, 1).
        level: Of the two-sided test.

    Returns:
        NaN for fewer than two seeds, or if all differences are equal.

    Raises:
        ValueError: If power is not between level and 1.

    Example:
        >>> round(detectable([-1.0, 0.0, 1.0]), 3)
        3.264
    """
    if not level < power < 1:
        raise ValueError(f"`power` (={power}) must be between `level` (={level}) and 1.")
    n, (mean, deviation) = len(differences), mean_std(differences)
    if n < 2 or not deviation > 1e-12 * abs(mean):  # as `paired`
        return math.nan
    t = stats.t.ppf(1 - level / 2, n - 1)

    def found(quantile: float, shift: float) -> float:
        """Return the power where s / sigma has this quantile; scipy's nct fails in its tails."""
        ratio = math.sqrt(2 * special.gammaincinv((n - 1) / 2, quantile) / (n - 1))
        return float(special.ndtr(shift - t * ratio) + special.ndtr(-shift - t * ratio))

    def missing(shift: float) -> float:
        return float(integrate.quad(found, 0, 1, args=(shift,))[0]) - power

    return float(optimize.brentq(missing, 0, 10 * t) * deviation / math.sqrt(n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, by Holm's step-down method.

    The chance that any true null hypothesis is rejected stays below the level at which the adjusted
    values are judged, whatever their dependence. NaN stays NaN, and does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    References:
        S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
        Statistics 6, 1979.
    """
    adjusted = [math.nan] * len(p_values)
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min((len(order) - rank) * p, 1.0))
        adjusted[i] = largest
    return adjusted


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
