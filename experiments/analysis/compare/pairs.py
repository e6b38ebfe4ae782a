"""Every method against every other: accuracies, adjusted for the number of pairs, and drift."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from experiments.analysis.compare.record import number
from experiments.analysis.comparison import QUANTITIES
from experiments.analysis.findings import no_test, verdict
from experiments.analysis.names import label
from experiments.common.statistics import holm, median, paired
from experiments.common.table import Column, Table, interval


def pairs_table(record: Mapping[str, Any]) -> Table:
    """Return one row per pair of methods: the paired difference, and whether it is one.

    The p-values are adjusted together, by Holm's method. What cannot be compared is marked with
    the reason.

    Args:
        record: As ``make_record`` gives it, maybe through JSON.
    """
    pairs = list(itertools.combinations(record["arms"], 2))
    found = [paired(_accuracies(other), _accuracies(one)) for one, other in pairs]
    adjusted = holm([pair.p for pair in found])
    rows = []
    for (one, other), pair, p in zip(pairs, found, adjusted, strict=True):
        rows.append(
            (
                *(label(other["name"]), label(one["name"]), pair.mean, (pair.low, pair.high)),
                *(pair.p, p, verdict(pair, p) or no_test(pair)),
                *drifts(one, other),
            )
        )
    columns = (
        *(Column("method"), Column("against"), Column("difference", "{:+.2f}", factor=100)),
        *(interval("95 % interval", "{:+.2f}", 100), Column("p", "{:.2g}")),
        *(Column("p (Holm)", "{:.2g}"), Column("found"), Column("layers compared", "{}")),
        *(Column("drift", "{:.2f}"), Column("drift, relative", "{:.2f}")),
    )
    caption = (
        "differences of test accuracy in percentage points, paired by seed, with the 95 % "
        "confidence interval of their mean and the p-value of Student's paired t-test; p (Holm): "
        f"adjusted for all {len(pairs)} pairs; drift: ratio of the median distances of a layer, "
        "median over layers"
    )
    return Table("pairs", "Every method against every other", caption, columns, rows)


def drifts(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, float, float]:
    """Return how many layers of two methods are comparable, and how far they moved in ``other``.

    Only layers of the same name with outputs of the same size are; where others exist, or one of
    the methods was not probed, the first cell says so.

    Args:
        one: Entry of the record.
        other: Entry of the record.
    """
    theirs, mine = ({row["layer"]: row for row in arm["distances"]} for arm in (one, other))
    if not theirs or not mine:
        silent = [label(arm["name"]) for arm in (one, other) if not arm["distances"]]
        return f"{' and '.join(silent)} not probed", math.nan, math.nan
    both = [name for name in theirs if name in mine and theirs[name]["d"] == mine[name]["d"]]
    absolute, relative = (
        median(_ratio(mine[name][q]["value"], theirs[name][q]["value"]) for name in both)
        for q in QUANTITIES
    )
    every = len(theirs.keys() | mine.keys())
    count = str(len(both)) if len(both) == every else f"{len(both)} of {every}"
    return count, absolute, relative


def _ratio(value: Any, base: Any) -> float:
    value, base = number(value), number(base)
    return value / base if base else math.nan


def _accuracies(arm: Mapping[str, Any]) -> list[float]:
    return [number(run["accuracy"]) for run in arm["runs"]]
