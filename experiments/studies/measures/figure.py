"""The figure: agreement of measures, and shift against accuracy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.figures.looks import COLOURS, looks
from experiments.analysis.figures.style import MUTED, legend, new_figure, plain_log, styled
from experiments.analysis.names import label
from experiments.studies.measures.summary import CERTIFIED, learned


def correlations_figure(record: Mapping[str, Any]) -> Figure:
    """Return correlations of each measure with the Earth Mover distance; and runs as points."""
    datasets = list(record["correlations"])
    with styled():
        figure = new_figure(5.2 * max(len(datasets), 1), 8.4)
        axes = figure.subplots(2, len(datasets), squeeze=False, height_ratios=(1.15, 1))
        for (upper, lower), dataset in zip(axes.T, datasets, strict=True):
            _agreement(upper, record["correlations"][dataset])
            upper.set_title(f"{dataset}: rank correlation with the Earth Mover distance")
            _scatter(lower, [row for row in record["runs"] if row["dataset"] == dataset])
            lower.set_title(f"{dataset}: runs")
        for axis in axes[0, 1:]:
            axis.tick_params(labelleft=False)
        legend(figure, axes.flat, where="lower")
    return figure


def _agreement(axis: Axes, of: Mapping[str, Any]) -> None:
    names = list(of["absolute"])
    at = np.arange(len(names))
    for i, target in enumerate(CERTIFIED):
        for j, (how, name) in enumerate((("pooled", "all"), ("both", "one layer and time"))):
            place = at + 0.3 - 0.2 * (2 * i + j)
            value, low, high = np.array([of[target][m][how] for m in names], float).T
            axis.errorbar(
                value,
                place,
                xerr=np.maximum([value - low, high - value], 0),
                fmt="os"[j],
                color=COLOURS[i],
                mfc=COLOURS[i] if j == 0 else "none",
                ms=4,
                lw=1.1,
                label=f"{target}, {name}",
            )
        layers = [(x, k) for k, m in zip(at, names, strict=True) for x in of[target][m]["by_layer"]]
        axis.plot(
            *np.array(layers, float).T,
            "|",
            color=COLOURS[i] if i else MUTED,
            ms=5,
            alpha=0.6,
            label=f"{target}, each layer",
        )
    axis.axvline(0, color=MUTED, lw=0.8)
    axis.set_yticks(at, names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(-1.03, 1.03)


def _scatter(axis: Axes, rows: list[Mapping[str, Any]]) -> None:
    for method, look in looks(list(dict.fromkeys(row["method"] for row in rows))).items():
        mine = [row for row in rows if row["method"] == method and learned(row)]
        axis.plot(
            [100 * row["accuracy"] for row in mine],
            [row["median"]["em, relative"] for row in mine],
            look.marker,
            color=look.colour,
            ms=4,
            alpha=0.8,
            label=label(method),
        )
    axis.set_yscale("log")
    plain_log(axis)
    axis.set(ylabel="distance / spread, median of a run", xlabel="test accuracy, %")
