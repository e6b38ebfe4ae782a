"""The figure: accuracy against strength, one panel per kind of noise."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.figures.looks import looks
from experiments.analysis.figures.style import legend, new_figure, panels, styled
from experiments.analysis.names import label
from experiments.studies.noise.study import KINDS, METHODS, Row, select

STYLES = {"clean": (":", "o"), "recalibrated": ("-", "s"), "tracked": ("--", "^")}


def noise_figure(rows: Sequence[Row], title: str) -> Figure:
    """Return mean accuracies with one standard deviation over seeds and chips.

    Args:
        rows: All measurements.
        title: Says what was measured.
    """
    kinds = list(dict.fromkeys(row.kind for row in rows))
    columns = min(3, len(kinds))
    with styled():
        figure = new_figure(max(4.6 * columns, 7), 3.6 * math.ceil(len(kinds) / columns) + 0.6)
        axes = panels(figure, len(kinds), columns)
        for axis, kind in zip(axes, kinds, strict=True):
            _panel(axis, [row for row in rows if row.kind == kind], kind)
        legend(figure, axes, where="lower")
        figure.suptitle(title, fontsize=10)
    return figure


def _panel(axis: Axes, rows: Sequence[Row], kind: str) -> None:
    norms = list(dict.fromkeys(row.norm for row in rows))
    levels = list(dict.fromkeys(row.level for row in rows))
    at = np.arange(len(levels))
    for norm, look in looks(norms).items():
        for method in METHODS:
            groups = [select(rows, norm=norm, method=method, level=level) for level in levels]
            if not len(groups[0]):
                continue
            means = np.array([100 * group.mean() for group in groups])
            spread = [100 * g.std(ddof=1) if len(g) > 1 else 0 for g in groups]
            line, marker = STYLES[method]
            kept = any(row.norm == norm and row.method == "tracked" for row in rows)
            name = f"{label(norm)}, {method}" if kept else label(norm)
            axis.errorbar(
                at,
                means,
                spread,
                fmt=marker + line,
                color=look.colour,
                ms=3.5,
                lw=1.2,
                capsize=2,
                label=name,
            )
    axis.set_xticks(at, [f"{level:g}" for level in levels], fontsize=8)
    axis.set_title(kind)
    axis.set(xlabel=KINDS[kind].unit, ylabel="test accuracy, %", ylim=(0, 102))
