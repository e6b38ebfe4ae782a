"""The runs of the study put together, and each measure of shift against BatchNorm's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.analysis.compare.combine import Compared, combine
from experiments.analysis.comparison import QUANTITIES, by_layer
from experiments.common.statistics import median
from experiments.studies.measures.summary import COLUMNS, TURNED

DECIDES = "em, relative"  # Which measure answers question 2.
# Columns of the probe's rows, by the names in tables.
MEASURES = {
    DECIDES: COLUMNS[DECIDES],
    **COLUMNS,
    "gradient L2": "gradient_l2",
    "gradient cosine": "gradient_cosine",
}
_CERTIFIED = {value: (lower, upper) for value, lower, upper in QUANTITIES.values()}


class LayerRatios(NamedTuple):
    """How far one layer moved with a method, in units of BatchNorm's at the same update.

    Medians over updates, one number per seed.

    Attributes:
        layer: Its path.
        seeds: Of the measured values.
        lowest: Of the lower end of its certificate to the upper one of BatchNorm's; of a measure
            without certificates, as ``seeds``.
        highest: Of its upper end to BatchNorm's lower one.
    """

    layer: str
    seeds: tuple[float, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]

    @property
    def sign(self) -> int:
        """-1 if certificates say that it moved less in every seed, 1 if more, else 0."""
        if all(ratio < 1 for ratio in self.highest):
            return -1
        return int(all(ratio > 1 for ratio in self.lowest))


def read_study(folder: Path) -> Compared:
    """Put the runs that ended together: BatchNorm first, and the seeds that all methods have.

    Methods come in the order of the first seed's files, whichever files there are for the others.

    Raises:
        ValueError: If there are none, or they differ in more than method, seed and machine.
    """
    # The first one is of BatchNorm, with what the others are compared.
    files = sorted(folder.glob("*.json"), key=_place)
    if not files:
        raise ValueError(
            f"{folder} has no file of a run; python -m experiments sweep --record makes them."
        )
    return combine(files, allow=("seeds", "versions"))


def _place(path: Path) -> tuple[bool, int, str]:
    name, _, seed = path.stem.rpartition("-seed")
    return "-bn-" not in path.name, int(seed) if seed.isdigit() else 0, name


def layer_ratios(compared: Compared, arm: str, measure: str) -> list[LayerRatios]:
    """Return how far each layer moved with a method, by one measure, against BatchNorm.

    Layers where the measure has no number in either are left out.

    Args:
        compared: The runs.
        arm: Name of the method.
        measure: Of ``MEASURES``.
    """
    column = MEASURES[measure]
    lower, upper = _CERTIFIED.get(column, (column, column))
    base = by_layer(compared.results.ics(compared.results.names[0]))
    mine = by_layer(compared.results.ics(arm))
    found = []
    for layer, rows in base.items():
        pairs = [
            (key[0], row, rows[key])
            for key, row in mine.get(layer, {}).items()
            if key in rows and _number(rows[key], column, measure) > 0
        ]
        if not pairs:
            continue
        medians = []
        for of, against in ((column, column), (lower, upper), (upper, lower)):
            seeds: dict[int, list[float]] = {}
            for seed, row, other in pairs:
                divisor = _number(other, against, measure)
                ratio = _number(row, of, measure) / divisor if divisor else np.inf
                seeds.setdefault(seed, []).append(ratio)
            medians.append(tuple(median(ratios) for ratios in seeds.values()))
        found.append(LayerRatios(layer, *medians))
    return found


def _number(row: Mapping[str, Any], column: str, measure: str) -> float:
    """Return what was measured so that it grows with shift; NaN where it was not."""
    value = row.get(column)
    if value is None:
        return np.nan
    if measure not in TURNED:
        return float(value)
    return (row["n"] if column == "kmm_sample_size" else 1.0) - float(value)
