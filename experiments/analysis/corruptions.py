"""Accuracy on corrupted test images: what ``evaluate --corruptions`` measured, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.common.statistics import mean_std, paired
from experiments.common.table import Column, Table, interval, mean_std_column

Rows = Sequence[Mapping[str, Any]]
CLEAN = "clean"  # In the place of a corruption.
NAMES = {"training": "of training", "recalibrated": "of these images"}  # The statistics'.


def methods(rows: Rows) -> list[tuple[str, str]]:
    """Return norms and statistics, in the order of the rows: all of a norm together."""
    found = dict.fromkeys((row["norm"], row["statistics"]) for row in rows)
    norms = list(dict.fromkeys(norm for norm, _ in found))
    return sorted(found, key=lambda pair: norms.index(pair[0]))


def by_seed(rows: Rows, norm: str, statistics: str, corruption: str | None) -> list[float]:
    """Return accuracies, one for each seed: means over severities, and corruptions if None."""
    seeds = dict.fromkeys(row["seed"] for row in rows if row["norm"] == norm)
    kept = [
        row
        for row in rows
        if (row["norm"], row["statistics"]) == (norm, statistics)
        and (row["corruption"] != CLEAN if corruption is None else row["corruption"] == corruption)
    ]
    return [
        float(np.mean([row["correct"] / row["images"] for row in kept if row["seed"] == seed]))
        for seed in seeds
    ]


def corruption_table(record: Mapping[str, Any]) -> Table:
    """Return a row for each norm and each kind of its statistics."""
    rows: Rows = record["corruptions"]
    corruptions = [c for c in dict.fromkeys(row["corruption"] for row in rows) if c != CLEAN]
    base, lines = methods(rows)[0][0], []
    for norm, statistics in methods(rows):
        mean = by_seed(rows, norm, statistics, None)
        same = by_seed(rows, base, "training", None)
        against = paired(mean, same) if (norm, statistics) != (base, "training") else None
        lines.append(
            (
                *(record["labels"][norm], NAMES[statistics], len(mean)),
                *(mean_std(by_seed(rows, norm, statistics, CLEAN)), mean_std(mean)),
                None if against is None else against.mean,
                None if against is None else (against.low, against.high),
                *(np.mean(by_seed(rows, norm, statistics, name)) for name in corruptions),
            )
        )
    columns = (
        *(Column("method"), Column("statistics"), Column("n", "{:.0f}")),
        *(mean_std_column("clean", 1, 100), mean_std_column("corrupted", 1, 100)),
        Column("minus the first", "{:+.1f}", factor=100),
        interval("95 % interval", "{:+.1f}", 100),
        *(Column(name.replace("_", " "), "{:.1f}", factor=100) for name in corruptions),
    )
    caption = (
        "means over five severities, and seeds (± standard deviation); corrupted: of all "
        "corruptions; differences are paired by seed"
    )
    return Table("corruptions", "Accuracy on corrupted test images, %", caption, columns, lines)
