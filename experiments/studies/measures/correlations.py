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
    return float(spearmans(x[kept][:, None], y[kept][:, None])[0])


def spearmans(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the rank correlation of each column of x with that of y; NaN where one is constant."""
    if len(x) < 3:
        return np.full(x.shape[1], np.nan)
    ranks = [stats.rankdata(z, axis=0) for z in (x, y)]
    off = [r - r.mean(0) for r in ranks]
    size = np.sqrt(np.square(off[0]).sum(0) * np.square(off[1]).sum(0))
    with np.errstate(invalid="ignore"):
        return np.where(size > 0, (off[0] * off[1]).sum(0) / size, np.nan)


def mean_correlation(values: Sequence[float] | np.ndarray) -> float:
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

    Runs in which one of them is not finite are left out: methods without statistics or parameters.

    Returns:
        ``pooled``: over all; ``layer`` and ``time``: means, by Fisher's z, of the correlations in
        each layer and at each time; ``both``: the same of those in one layer at one time, over runs
        alone. Each with an interval. ``by_layer`` and ``by_time``: the single ones.
    """
    whole = np.isfinite(x).all((1, 2)) & np.isfinite(y).all((1, 2))
    x, y = x[whole], y[whole]
    times, layers = x.shape[1:]
    # Columns to correlate, from numbers (runs, times, layers).
    columns: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "pooled": lambda z: z.reshape(-1, 1),
        "layer": lambda z: z.reshape(-1, layers),
        "time": lambda z: z.transpose(0, 2, 1).reshape(-1, times),
        "both": lambda z: z.reshape(-1, times * layers),
    }
    found: dict[str, Any] = {}
    for name, of in columns.items():

        def statistic(runs: np.ndarray, of: Callable[[np.ndarray], np.ndarray] = of) -> float:
            each = spearmans(of(x[runs]), of(y[runs]))
            return float(each[0]) if len(each) == 1 else mean_correlation(each)

        found[name] = with_interval(statistic, len(x), resamples)
    for name in ("layer", "time"):
        found[f"by_{name}"] = spearmans(columns[name](x), columns[name](y)).tolist()
    return found


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
            off.append((values - means) / np.abs(means))

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
