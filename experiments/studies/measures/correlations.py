"""Rank correlations with bootstrap intervals: of measures with each other, and with accuracy."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

SEED = 0  # Of the resamples.


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's rank correlation of the pairs that are both finite.

    Example:
        >>> import numpy as np
        >>> round(spearman(np.array([1.0, 2, 3, np.nan]), np.array([1.0, 8, 27, 0])), 6)
        1.0
    """
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    ranks = stats.rankdata(x), stats.rankdata(y)
    return float(np.corrcoef(*ranks)[0, 1])


def mean_correlation(values: Sequence[float]) -> float:
    """Return the mean of correlations by Fisher's z; those that are NaN are left out.

    Example:
        >>> round(mean_correlation([0.5, 0.5, float("nan")]), 6)
        0.5
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # The mean of nothing.
        return float(np.tanh(np.nanmean(_fisher(values))))


def _fisher(values: Any) -> np.ndarray:
    return np.arctanh(np.clip(values, -1 + 1e-6, 1 - 1e-6))


def with_interval(
    statistic: Callable[[np.ndarray], float], count: int, resamples: int
) -> list[float]:
    """Return a correlation of runs and its 95 % interval, by bootstrap over them.

    ``tanh(arctanh r +- 1.96 s)``, s the standard deviation of ``arctanh r`` over the resamples.

    Args:
        statistic: From the numbers of the runs, some of them more than once.
        count: Of runs.
        resamples: How often they are drawn.

    Returns:
        Value, lower end, upper end.
    """
    rng = np.random.default_rng(SEED)
    value = statistic(np.arange(count))
    drawn = np.array([statistic(rng.integers(0, count, count)) for _ in range(resamples)])
    drawn = _fisher(drawn[np.isfinite(drawn)])
    if not np.isfinite(value) or len(drawn) < 2:
        return [value, float("nan"), float("nan")]
    half = stats.norm.ppf(0.975) * drawn.std(ddof=1)
    return [value, *np.tanh(_fisher(value) + np.array([-half, half])).tolist()]


def agreement(x: np.ndarray, y: np.ndarray, resamples: int) -> dict[str, Any]:
    """Return how two measures agree, from numbers (runs, times, layers).

    Returns:
        ``pooled``: over all; ``layer`` and ``time``: means, by Fisher's z, of the correlations in
        each layer and at each time; ``both``: the same of those in one layer at one time, over runs
        alone. Each with an interval. ``by_layer`` and ``by_time``: the single ones.
    """
    times, layers = x.shape[1:]

    def pooled(runs: np.ndarray) -> float:
        return spearman(x[runs].ravel(), y[runs].ravel())

    def of_layer(runs: np.ndarray) -> list[float]:
        return [spearman(x[runs, :, i].ravel(), y[runs, :, i].ravel()) for i in range(layers)]

    def of_time(runs: np.ndarray) -> list[float]:
        return [spearman(x[runs, t].ravel(), y[runs, t].ravel()) for t in range(times)]

    def of_both(runs: np.ndarray) -> list[float]:
        cells = [(t, i) for t in range(times) for i in range(layers)]
        return [spearman(x[runs, t, i], y[runs, t, i]) for t, i in cells]

    found: dict[str, Any] = {"pooled": with_interval(pooled, len(x), resamples)}
    kinds: dict[str, Callable[[np.ndarray], list[float]]]
    kinds = {"layer": of_layer, "time": of_time, "both": of_both}
    for name, each in kinds.items():

        def mean(runs: np.ndarray, each: Callable[[np.ndarray], list[float]] = each) -> float:
            return mean_correlation(each(runs))

        found[name] = with_interval(mean, len(x), resamples)
    everything = np.arange(len(x))
    return found | {"by_layer": of_layer(everything), "by_time": of_time(everything)}


def against_accuracy(
    drift: np.ndarray,
    accuracy: np.ndarray,
    methods: np.ndarray,
    recipes: np.ndarray,
    resamples: int,
) -> dict[str, list[float]]:
    """Return how drift and accuracy of runs go together.

    Args:
        drift: Of each run.
        accuracy: Of each run.
        methods: Number of its method.
        recipes: Number of its learning rate and batch size.
        resamples: For the intervals.

    Returns:
        ``all``: over all runs; ``methods``: the mean, by Fisher's z, of those within one method,
        where recipes differ; ``recipes``: the same within one recipe, where methods differ;
        ``both``: of deviations from the mean of method and recipe, where only seeds differ.
    """
    both = methods * (recipes.max() + 1) + recipes
    off = []
    for values in (drift, accuracy):
        means = np.array([values[both == cell].mean() for cell in both])
        # Relative, or cells with large drift would decide.
        with np.errstate(invalid="ignore", divide="ignore"):
            off.append(values / means - 1)

    def within(groups: np.ndarray) -> Callable[[np.ndarray], float]:
        def statistic(runs: np.ndarray) -> float:
            chosen = [runs[groups[runs] == group] for group in np.unique(groups)]
            return mean_correlation([spearman(drift[r], accuracy[r]) for r in chosen])

        return statistic

    statistics: dict[str, Callable[[np.ndarray], float]] = {
        "all": lambda runs: spearman(drift[runs], accuracy[runs]),
        "methods": within(methods),
        "recipes": within(recipes),
        "both": lambda runs: spearman(off[0][runs], off[1][runs]),
    }
    return {
        name: with_interval(statistic, len(drift), resamples)
        for name, statistic in statistics.items()
    }
