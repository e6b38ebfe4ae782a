"""The figures of the shift of all norms of a run together: ``ics.png``, and parts of the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from experiments.analysis.comparison import LayerComparison, compare
from experiments.analysis.figures import style
from experiments.analysis.figures.looks import Look, dodge, looks
from experiments.analysis.figures.panels import (
    UNITS,
    all_layers,
    draw_distances,
    panel_size,
    positive,
    shown_layers,
)
from experiments.analysis.results import Results
from experiments.common.statistics import median
from unitnorm_jax.ics import best_bounds, row_name

CROWDED = 48  # Marks, of layers times methods; more are joined to lines, without quartiles.


def plot_ics(results: Results, path: Path) -> None:
    """Draw ratios by depth, and relative and absolute distances over updates; write a PNG.

    Args:
        results: Of a run in which at least one norm was probed.
        path: The PNG to write.
    """
    with style.styled():
        several = len(results.probed()) > 1
        width, height = panel_size(results)
        width = max(width, 11)
        heights = [*([_ratios_height(results, width)] if several else []), height, height]
        figure = style.new_figure(width, sum(heights) + 0.4)
        parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
        if several:
            draw_ratios(parts[0], results)
        draw_distances(parts[-2], results, "relative")
        draw_distances(parts[-1], results, "absolute")
        title = f"{results.title}: shift of the normalization layers' outputs"
        figure.suptitle(style.cut(title, 100), fontsize=11)
        figure.savefig(path, dpi=110)


def ratios_figure(results: Results) -> Figure:
    """Return the figure of ``draw_ratios`` alone."""
    with style.styled():
        figure = style.new_figure(9.5, _ratios_height(results, 9.5))
        draw_ratios(figure, results)
    return figure


def distances_figure(results: Results, quantity: str) -> Figure:
    """Return the figure of ``draw_distances`` alone."""
    with style.styled():
        figure = style.new_figure(*panel_size(results))
        draw_distances(figure, results, quantity)
    return figure


def bounds_figure(results: Results) -> Figure:
    """Return the figure of the distance of each layer between its closed-form bounds."""
    with style.styled():
        names = results.labelled(results.probed())
        figure = style.new_figure(9.5, 3.5 + style.legend_height(names, 9.5))
        axis = figure.subplots()
        draw_bounds(axis, results)
        style.legend(figure, [axis], results.labelled(results.by_result))
    return figure


def _ratios_height(results: Results, width: float) -> float:
    base, *others = results.probed()
    return (6.0 if is_crowded(results) else 3.1) + style.legend_height(
        [_base(results, base), *results.labelled(others)], width
    )


def _base(results: Results, base: str) -> str:
    return f"{results.label(base)} = 1"


def is_crowded(results: Results) -> bool:
    """Return whether the ratios of all layers and norms are too many for a mark each."""
    return len(all_layers(results)) * (len(results.probed()) - 1) > CROWDED


def draw_ratios(figure: Figure | SubFigure, results: Results) -> None:
    """Draw, layer by layer, how much further each norm moved than the first one.

    The mark is the median over all pairs of the same update and seed, the bar their quartiles; a
    dot is the median of one seed. Where these would stand too close, lines join the medians, one
    panel above the other.
    """
    base, *others = results.probed()
    look, crowded = looks(results.names), is_crowded(results)
    grid: Any = {"sharex": True} if crowded else {"sharey": True}
    axes = figure.subplots(*((2, 1) if crowded else (1, 2)), **grid)
    layers = all_layers(results)
    for axis, quantity in zip(axes, ("relative", "absolute"), strict=True):
        axis.axhline(1, lw=1.4, label=_base(results, base), **look[base].line)
        for i, norm in enumerate(others):
            found = compare(results.ics(norm), results.ics(base), quantity)
            x = np.array([layers.index(layer.layer) for layer in found], np.float64)
            name = results.label(norm)
            if crowded:
                medians = positive([layer.ratio for layer in found])
                line = look[norm].marked(len(x), 12) | {"ms": 3.5}
                axis.plot(x, medians, lw=1.2, label=name, **line)
            else:
                offset = dodge(i, len(others))
                _draw_layers(axis, x + offset, found, look[norm], name, 0.7 / len(others))
        axis.set(yscale="log", title=UNITS[quantity])
        style.plain_log(axis)
        style.depth_ticks(axis, layers, 1.0 if crowded else 0.5)
        if not crowded or quantity == "absolute":
            axis.set_xlabel(style.DEPTH)
    figure.supylabel(style.cut(f"ratio to {results.label(base)}", 40), fontsize=9)
    style.legend(figure, axes, results.labelled(results.by_result))


def _draw_layers(
    axis: Axes, x: np.ndarray, found: list[LayerComparison], look: Look, name: str, room: float
) -> None:
    """Draw median and quartiles at x, and beside them, within ``room``, a dot for each seed."""
    centre = positive([layer.ratio for layer in found])
    ends = positive([layer.quartiles for layer in found]).reshape(-1, 2).T
    bar: Any = look.point | {"elinewidth": 1.2, "capsize": 2.5}
    axis.errorbar(x, centre, abs(ends - centre), label=name, **bar)
    for at, layer in zip(x, found, strict=True):
        count = len(layer.seed_ratios)
        if count > 1:
            places = at + room * (0.2 + 0.25 * np.arange(count) / count)
            dots: Any = {"ms": 3, "alpha": 0.6, "color": look.colour}
            axis.plot(places, positive(layer.seed_ratios), ".", **dots)


def draw_bounds(axis: Axes, results: Results) -> None:
    """Draw, for each layer and norm, the distance between its best closed-form bounds (medians).

    All medians are over seeds and updates.
    """
    layers, norms = shown_layers(results), results.probed()
    look = looks(results.names)
    thick = min(7.0, 300 / (len(layers) * len(norms)))  # Points; the axes have about 600.
    for i, norm in enumerate(norms):
        rows = [row for seed in results.ics(norm).values() for row in seed if not row["reason"]]
        x = np.arange(len(layers)) + dodge(i, len(norms))
        by_layer = [[row for row in rows if row_name(row) == layer] for layer in layers]
        ends = np.array([_median([best_bounds(r) for r in of]) for of in by_layer])
        values = np.array([_median([[r["value"]] for r in of])[0] for of in by_layer])
        lower, upper = positive(ends[:, 0]), positive(ends[:, 1])
        colour = look[norm].colour
        axis.vlines(x, lower, upper, color=colour, alpha=0.25, lw=thick)
        marks: Any = {"color": colour, "lw": 0, "ms": 1.3 * thick, "marker": "_"}
        axis.plot(x, upper, **marks)
        axis.plot(x, lower, **marks)
        point: Any = look[norm].point | {"ms": min(4.5, 0.9 * thick)}
        axis.plot(x, positive(values), label=results.label(norm), **point)
    axis.set(yscale="log", xlabel=style.DEPTH, ylabel=UNITS["absolute"])
    style.plain_log(axis)
    style.depth_ticks(axis, layers)


def _median(values: Sequence[Sequence[float]]) -> np.ndarray:
    columns = zip(*values, strict=True) if len(values) else ([], [])
    return np.array([median(column) for column in columns])
