"""The figures of the shift of all norms of a run together: ``ics.png``, and parts of the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from experiments.analysis.comparison import compare
from experiments.analysis.figures import curves
from experiments.analysis.figures.panels import (
    UNITS,
    draw_distances,
    panel_size,
    positive,
    shown_layers,
)
from experiments.analysis.results import Results
from experiments.common.statistics import median
from unitnorm_jax.ics import best_bounds, row_name

MANY = 24  # Layers; more than these are drawn smaller, and without a dot for each seed.


def plot_ics(results: Results, path: Path, title: str) -> None:
    """Draw ratios by depth, and relative and absolute distances over updates; write a PNG.

    Args:
        results: Of a run in which at least one norm was probed.
        path: The PNG to write.
        title: Says what was trained, on what data.
    """
    with curves.styled():
        several = len(results.probed()) > 1
        _, height = panel_size(results)
        heights = [*([3.2] if several else []), height, height]
        figure = curves.new_figure(11, sum(heights) + 0.4)
        parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
        if several:
            draw_ratios(parts[0], results)
        draw_distances(parts[-2], results, "relative")
        draw_distances(parts[-1], results, "absolute")
        figure.suptitle(f"{title}: shift of the normalization layers' outputs", fontsize=11)
        figure.savefig(path, dpi=110)


def ratios_figure(results: Results) -> Figure:
    """Return the figure of ``draw_ratios`` alone."""
    with curves.styled():
        figure = curves.new_figure(9.5, 3.4)
        draw_ratios(figure, results)
    return figure


def distances_figure(results: Results, quantity: str) -> Figure:
    """Return the figure of ``draw_distances`` alone."""
    with curves.styled():
        figure = curves.new_figure(*panel_size(results))
        draw_distances(figure, results, quantity)
    return figure


def bounds_figure(results: Results) -> Figure:
    """Return the figure of the distance of each layer between its closed-form bounds."""
    with curves.styled():
        figure = curves.new_figure(9.5, 3.8)
        draw_bounds(figure.subplots(), results)
    return figure


def draw_ratios(figure: Figure | SubFigure, results: Results) -> None:
    """Draw, layer by layer, how much further each norm moved than the first one.

    The mark is the median over all pairs of the same update and seed, the bar their quartiles; a
    dot is the median of one seed (in networks that are not too deep).
    """
    base, *others = results.probed()
    colour = curves.colours(results.names)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, quantity in zip(axes, ("relative", "absolute"), strict=True):
        layers: list[str] = []
        for i, norm in enumerate(others):
            found = compare(results.ics(norm), results.ics(base), quantity)
            layers = [layer.layer for layer in found] or layers
            x = np.arange(len(found)) + 0.25 * (i - (len(others) - 1) / 2)
            centre = positive([layer.ratio for layer in found])
            ends = positive([layer.quartiles for layer in found]).reshape(-1, 2).T
            many = len(found) > MANY
            size = {"ms": 3, "elinewidth": 0.8} if many else {"ms": 5, "capsize": 3}
            bar: Any = {"marker": "o", "lw": 0, "elinewidth": 1.2, **size}
            name = f"{curves.label(norm)}, median and quartiles"
            axis.errorbar(x, centre, abs(ends - centre), color=colour[norm], label=name, **bar)
            dots = [
                (x[k] + 0.08 + 0.04 * j, ratio)
                for k, layer in enumerate(found)
                for j, ratio in enumerate(layer.seed_ratios)
                if len(layer.seed_ratios) > 1 and not many
            ]
            if dots:
                at, ratios = positive(dots).T
                dot: Any = {"ms": 4, "alpha": 0.6, "label": f"{curves.label(norm)}, each seed"}
                axis.plot(at, ratios, ".", color=colour[norm], **dot)
        axis.axhline(1, color=colour[base], lw=1.4)
        axis.set(yscale="log", xlabel=curves.DEPTH, title=UNITS[quantity])
        curves.plain_log(axis)
        curves.depth_ticks(axis, layers)
    axes[0].set_ylabel(f"ratio to {curves.label(base)}; below 1: moved less")
    curves.legend(figure, axes)


def draw_bounds(axis: Axes, results: Results) -> None:
    """Draw, for each layer and norm, the distance between its best closed-form bounds (medians).

    All medians are over seeds and updates.
    """
    layers, norms = shown_layers(results), results.probed()
    colour = curves.colours(results.names)
    for i, norm in enumerate(norms):
        rows = [row for seed in results.ics(norm).values() for row in seed if not row["reason"]]
        x = np.arange(len(layers)) + 0.3 * (i - (len(norms) - 1) / 2)
        by_layer = [[row for row in rows if row_name(row) == layer] for layer in layers]
        ends = np.array([_median([best_bounds(r) for r in of]) for of in by_layer])
        values = np.array([_median([[r["value"]] for r in of])[0] for of in by_layer])
        lower, upper = positive(ends[:, 0]), positive(ends[:, 1])
        axis.vlines(x, lower, upper, color=colour[norm], alpha=0.25, lw=7)
        marks: Any = {"color": colour[norm], "lw": 0, "ms": 9, "marker": "_"}
        axis.plot(x, upper, **marks)
        axis.plot(x, lower, **marks)
        axis.plot(x, positive(values), "o", color=colour[norm], ms=4.5, label=curves.label(norm))
    axis.set(yscale="log", xlabel=curves.DEPTH, ylabel=UNITS["absolute"])
    curves.plain_log(axis)
    curves.depth_ticks(axis, layers)
    axis.legend(title="dot: measured; bar: bounds", title_fontsize=8, fontsize=8)


def _median(values: Sequence[Sequence[float]]) -> np.ndarray:
    columns = zip(*values, strict=True) if len(values) else ([], [])
    return np.array([median(column) for column in columns])
