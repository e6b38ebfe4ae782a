"""The figure of ``evaluate --corruptions``: accuracy by severity, one panel per corruption."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.corruptions import CLEAN, NAMES, Rows, methods
from experiments.analysis.figures.looks import looks
from experiments.analysis.figures.style import legend, new_figure, panels, styled

LINES = {"training": "-", "recalibrated": "--"}


def corruptions_figure(record: Mapping[str, Any]) -> Figure:
    """Return the figure; severity 0 is the images as they are.

    Args:
        record: With ``corruptions``, the rows; ``labels`` of the norms; the name of the ``data``.
    """
    rows: Rows = record["corruptions"]
    names = [name for name in dict.fromkeys(row["corruption"] for row in rows) if name != CLEAN]
    with styled():
        figure = new_figure(10, 5.2)
        axes = panels(figure, len(names), 4, sharex=True, sharey=True)
        for axis, name in zip(axes, names, strict=True):
            _panel(axis, rows, name, record["labels"])
            axis.set_title(name.replace("_", " "))
        for axis in axes[::4]:
            axis.set_ylabel("test accuracy, %")
        for axis in axes[-4:]:
            axis.set_xlabel("severity (0: clean)")
        legend(figure, axes[:1], where="lower")
        figure.suptitle(f"Corrupted test images of {record['data']['name']}", fontsize=10)
    return figure


def _panel(axis: Axes, rows: Rows, name: str, labels: Mapping[str, str]) -> None:
    look = looks(list(dict.fromkeys(row["norm"] for row in rows)))
    for norm, statistics in methods(rows):
        mine = [
            row
            for row in rows
            if (row["norm"], row["statistics"]) == (norm, statistics)
            and row["corruption"] in (CLEAN, name)
        ]
        severities = sorted({row["severity"] for row in mine})
        groups = [
            [100 * row["correct"] / row["images"] for row in mine if row["severity"] == severity]
            for severity in severities
        ]
        spread = [np.std(group, ddof=1) if len(group) > 1 else 0 for group in groups]
        axis.errorbar(
            severities,
            [np.mean(group) for group in groups],
            spread,
            fmt=LINES[statistics] + "o",
            color=look[norm].colour,
            ms=3,
            lw=1.2,
            capsize=2,
            label=f"{labels[norm]}, statistics {NAMES[statistics]}",
        )
    axis.set_xticks(range(6))
