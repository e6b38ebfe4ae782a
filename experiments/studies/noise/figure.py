"""The figure: accuracy against strength, one panel per kind of noise."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from experiments.analysis.figures.curves import colours, label, new_figure, styled
from experiments.studies.noise.study import KINDS, METHODS, Row, select

STYLES = {"clean": (":", "o"), "recalibrated": ("-", "s"), "tracked": ("--", "^")}


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw mean accuracies with one standard deviation over seeds and chips; write a PNG.

    Args:
        rows: All measurements.
        path: The PNG to write.
        title: Says what was measured.
    """
    kinds = list(dict.fromkeys(row.kind for row in rows))
    columns = min(3, len(kinds) + 1)
    lines = -(-(len(kinds) + 1) // columns)  # the last panel holds the legend
    with styled():
        figure = new_figure(4.6 * columns, 3.6 * lines)
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axis, kind in zip(panels, kinds, strict=False):
            _panel(axis, [row for row in rows if row.kind == kind], kind)
        handles, labels = panels[0].get_legend_handles_labels()
        for axis in panels[len(kinds) :]:
            axis.axis("off")
        panels[len(kinds)].legend(handles, labels, loc="center left", fontsize=9)
        figure.suptitle(title, fontsize=10)
        figure.savefig(path, dpi=130)


def _panel(axis: Axes, rows: Sequence[Row], kind: str) -> None:
    norms = list(dict.fromkeys(row.norm for row in rows))
    levels = list(dict.fromkeys(row.level for row in rows))
    at = np.arange(len(levels))
    for norm, colour in colours(norms).items():
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
                color=colour,
                ms=3.5,
                lw=1.2,
                capsize=2,
                label=name,
            )
    axis.set_xticks(at, [f"{level:g}" for level in levels], fontsize=8)
    axis.set_title(kind)
    axis.set(xlabel=KINDS[kind].unit, ylabel="test accuracy, %", ylim=(0, 102))
