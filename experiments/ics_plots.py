"""The figures of the shift of all norms of a run together: ``ics.png``, and parts of the report."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments import plots
from experiments.comparison import QUANTITIES, compare
from experiments.results import Results
from unitnorm_jax.ics.report import best_bounds, row_name

MAX_LAYERS = 12  # Panels; deeper networks show every k-th layer.
MAX_STEPS = 120  # Measurements drawn of each line; longer runs show every k-th.
UNITS = {"absolute": "EM distance", "relative": "EM distance / spread"}
NOT_FINITE = "output not finite"
UNPROVEN = "certificate open"

Cell = Mapping[str, Any]


def plot_ics(results: Results, path: Path, title: str) -> None:
    """Draws ratios by depth, and relative and absolute distances over updates; writes a PNG.

    Args:
        results: Of a run in which at least one norm was probed.
        path: The PNG to write.
        title: Says what was trained, on what data.
    """
    with plots.styled():
        lines = math.ceil(len(shown_layers(results)) / _columns(results))
        several = len(results.probed()) > 1
        heights = [*([3.2] if several else []), 2.1 * lines + 0.9, 2.1 * lines + 0.9]
        figure = plots.new_figure(11, sum(heights) + 0.4)
        parts = list(figure.subfigures(len(heights), 1, height_ratios=heights))
        if several:
            draw_ratios(parts[0], results)
        draw_distances(parts[-2], results, "relative")
        draw_distances(parts[-1], results, "absolute")
        figure.suptitle(f"{title}: shift of the normalization layers' outputs", fontsize=11)
        figure.savefig(path, dpi=110)


def ratios_figure(results: Results) -> Figure:
    """Returns the figure of ``draw_ratios`` alone."""
    with plots.styled():
        figure = plots.new_figure(9.5, 3.4)
        draw_ratios(figure, results)
    return figure


def distances_figure(results: Results, quantity: str) -> Figure:
    """Returns the figure of ``draw_distances`` alone."""
    with plots.styled():
        columns = _columns(results)
        lines = math.ceil(len(shown_layers(results)) / columns)
        figure = plots.new_figure(2.6 * columns + 0.6, 2.1 * lines + 0.9)
        draw_distances(figure, results, quantity)
    return figure


def bounds_figure(results: Results) -> Figure:
    """Returns the figure of the distance of each layer between its closed-form bounds."""
    with plots.styled():
        figure = plots.new_figure(9.5, 3.8)
        draw_bounds(figure.subplots(), results)
    return figure


def shown_layers(results: Results) -> list[str]:
    """Returns the layers that are drawn, from input to output: at most ``MAX_LAYERS``."""
    layers: dict[str, None] = {}
    for norm in results.probed():
        for rows in results.ics(norm).values():
            layers.update(dict.fromkeys(row_name(row) for row in rows))
    names = list(layers)
    return names[:: -(-len(names) // MAX_LAYERS)]


def draw_ratios(figure: Figure | SubFigure, results: Results) -> None:
    """Draws, layer by layer, how much further each norm moved than the first one.

    The mark is the median over all pairs of the same update and seed, the bar their quartiles; a
    dot is the median of one seed.
    """
    base, *others = results.probed()
    colour = plots.colours(results.config.norms)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, quantity in zip(axes, ("relative", "absolute"), strict=True):
        layers: list[str] = []
        for i, norm in enumerate(others):
            found = compare(results.ics(norm), results.ics(base), quantity)
            layers = [layer.layer for layer in found] or layers
            x = np.arange(len(found)) + 0.25 * (i - (len(others) - 1) / 2)
            centre = _positive([layer.ratio for layer in found])
            ends = _positive([layer.quartiles for layer in found]).reshape(-1, 2).T
            bar = {"marker": "o", "ms": 5, "lw": 0, "elinewidth": 1.2, "capsize": 3}
            name = f"{plots.label(norm)}, quartiles over updates"
            axis.errorbar(x, centre, abs(ends - centre), color=colour[norm], label=name, **bar)
            dots = [
                (x[k] + 0.08 + 0.04 * j, ratio)
                for k, layer in enumerate(found)
                for j, ratio in enumerate(layer.seed_ratios)
                if len(layer.seed_ratios) > 1
            ]
            if dots:
                at, ratios = _positive(dots).T
                dot = {"ms": 4, "alpha": 0.6, "label": "median of each seed"}
                axis.plot(at, ratios, ".", color=colour[norm], **dot)
        axis.axhline(1, color=colour[base], lw=1.4)
        axis.set(yscale="log", xlabel=plots.DEPTH, title=UNITS[quantity])
        _plain_log(axis)
        plots.depth_ticks(axis, layers)
        axis.annotate(
            f"below: less than {plots.label(base)}",
            (0.01, 0.02),
            xycoords="axes fraction",
            color=plots.MUTED,
            fontsize=8,
        )
    axes[0].set_ylabel(f"ratio to {plots.label(base)}")
    axes[0].legend(fontsize=8)


def draw_distances(figure: Figure | SubFigure, results: Results, quantity: str) -> None:
    """Draws one panel per layer: each norm's distance over updates, between the bounds.

    Thick: median over seeds; thin: one seed, in the shade of its certificate (nearly always thinner
    than the line). Wide band: from the best closed-form lower bound to the best upper one (medians
    over seeds), but for the pairing's cost, which nearly is the distance. Hollow marks: the
    certificate stayed open. Crosses on the axis: the output was not finite.

    Args:
        figure: Drawn into.
        results: Of the run.
        quantity: "relative": all panels share one scale; "absolute": each has its own.
    """
    layers, columns = shown_layers(results), _columns(results)
    relative = quantity == "relative"
    grid = figure.subplots(
        math.ceil(len(layers) / columns), columns, sharex=True, sharey=relative, squeeze=False
    )
    axes = list(grid.flat)
    colour = plots.colours(results.config.norms)
    drawn = []
    for axis, layer in zip(axes, layers, strict=False):
        lines = [
            _draw_norm(axis, results.ics(norm), layer, quantity, colour[norm], plots.label(norm))
            for norm in results.probed()
        ]
        drawn.append(np.concatenate(lines))
        d = next(r["d"] for r in _all_rows(results) if row_name(r) == layer)
        axis.set_title(f"{layer}  (d = {d})", fontsize=9)
    for axis in axes[len(layers) :]:
        axis.remove()
    axes = axes[: len(layers)]
    if relative:
        _limit(axes, np.concatenate(drawn))
    else:
        for axis, values in zip(axes, drawn, strict=True):
            _limit([axis], values)
    for axis in axes[max(len(layers) - columns, 0) :]:
        axis.tick_params(labelbottom=True)
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    figure.legend(
        list(entries.values()), list(entries), loc="outside upper left", ncols=5, fontsize=8
    )
    figure.supylabel(UNITS[quantity], fontsize=9)
    first = next(iter(_all_rows(results)))
    updates = f"{first['lag']} update" + ("s" if first["lag"] > 1 else "")
    figure.supxlabel(
        f"update (shift over {updates}, {first['mode']} mode, n = {first['n']} images)", fontsize=9
    )


def draw_bounds(axis: Axes, results: Results) -> None:
    """Draws, for each layer and norm, the distance between its best closed-form bounds (medians).

    All medians are over seeds and updates.
    """
    layers, norms = shown_layers(results), results.probed()
    colour = plots.colours(results.config.norms)
    for i, norm in enumerate(norms):
        rows = [row for seed in results.ics(norm).values() for row in seed if not row["reason"]]
        x = np.arange(len(layers)) + 0.3 * (i - (len(norms) - 1) / 2)
        by_layer = [[row for row in rows if row_name(row) == layer] for layer in layers]
        ends = np.array([_median([best_bounds(r) for r in of]) for of in by_layer])
        values = np.array([_median([[r["value"]] for r in of])[0] for of in by_layer])
        lower, upper = _positive(ends[:, 0]), _positive(ends[:, 1])
        axis.vlines(x, lower, upper, color=colour[norm], alpha=0.25, lw=7)
        marks = {"color": colour[norm], "lw": 0, "ms": 9, "marker": "_"}
        axis.plot(x, upper, **marks)
        axis.plot(x, lower, **marks)
        axis.plot(x, _positive(values), "o", color=colour[norm], ms=4.5, label=plots.label(norm))
    axis.set(yscale="log", xlabel=plots.DEPTH, ylabel=UNITS["absolute"])
    _plain_log(axis)
    plots.depth_ticks(axis, layers)
    axis.legend(title="dot: measured; bar: bounds", title_fontsize=8, fontsize=8)


def _draw_norm(
    axis: Axes,
    by_seed: Mapping[int, Sequence[Cell]],
    layer: str,
    quantity: str,
    colour: str,
    name: str,
) -> np.ndarray:
    """Draws one norm into the panel of one layer; returns its line."""
    value, lower, upper = QUANTITIES[quantity]
    seeds = [[row for row in rows if row_name(row) == layer] for rows in by_seed.values()]
    seeds = [rows[:: -(-len(rows) // MAX_STEPS)] for rows in seeds if rows]
    if not seeds:
        return np.array([])
    for rows in seeds:
        steps = [row["step"] for row in rows]
        ends = [_positive([row[end] for row in rows]) for end in (lower, upper)]
        axis.fill_between(steps, *ends, color=colour, alpha=0.3, lw=0, zorder=2.4)
        if len(seeds) > 1:
            distances = _positive([row[value] for row in rows])
            axis.plot(steps, distances, color=colour, alpha=0.45, lw=0.6, zorder=2.5)
    count = min(len(rows) for rows in seeds)
    steps = [row["step"] for row in seeds[0][:count]]

    def over_seeds(column: Any) -> np.ndarray:
        values = np.array([[column(row) for row in rows[:count]] for rows in seeds])
        return _positive(np.median(values, axis=0))

    line = over_seeds(lambda row: row[value])
    axis.plot(steps, line, color=colour, lw=1.7, zorder=3, label=name)

    def bound(side: int) -> np.ndarray:
        return over_seeds(
            lambda row: (
                best_bounds(row)[side]
                / (1.0 if quantity == "absolute" else row["spread"] or math.nan)
            )
        )

    below, above = bound(0), bound(1)
    axis.fill_between(
        steps, below, above, color=colour, alpha=0.1, lw=0, zorder=0.5, label=f"{name}, bounds"
    )
    for edge in (below, above):
        axis.plot(steps, edge, color=colour, alpha=0.5, lw=0.6, zorder=0.6)
    still_open = [row for rows in seeds for row in rows if not row["exact"] and not row["reason"]]
    if still_open:
        axis.plot(
            [row["step"] for row in still_open],
            _positive([row[value] for row in still_open]),
            "o",
            ms=3.5,
            mfc="none",
            mec=colour,
            zorder=4,
            label=UNPROVEN,
        )
    bad = [row["step"] for rows in seeds for row in rows if row["reason"]]
    if bad:
        axis.plot(
            bad,
            [0.02] * len(bad),
            "x",
            color=colour,
            ms=5,
            transform=axis.get_xaxis_transform(),
            clip_on=False,
            label=NOT_FINITE,
        )
    return line


def _limit(axes: Sequence[Axes], values: np.ndarray) -> None:
    """Gives axes that show the values one logarithmic scale, down to nearly the smallest.

    At the end of a schedule the learning rate goes to zero, and the shift with it: one point of no
    interest would take more decades than all the others.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return
    top = max(axis.dataLim.ymax for axis in axes)
    bottom = max(np.min(values) / 1.3, np.quantile(values, 0.05) / 2)
    for axis in axes:
        axis.set_yscale("log")
        axis.set_ylim(bottom, 1.5 * max(top, np.max(values)))
        _plain_log(axis)


def _columns(results: Results) -> int:
    return min(4, len(shown_layers(results)))


def _all_rows(results: Results) -> Sequence[Cell]:
    return [row for run in results.runs for row in run.ics]


def _median(values: Sequence[Sequence[float]]) -> np.ndarray:
    return np.median(np.array(values), axis=0) if len(values) else np.array([math.nan, math.nan])


def _positive(values: Any) -> np.ndarray:
    """For a logarithmic axis: what it cannot show is left out."""
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _plain_log(axis: Axes, fewest: int = 4) -> None:
    """Labels a logarithmic axis with plain numbers, however little of a decade it spans."""
    low, high = axis.get_ylim()
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks: list[float] = []
    for steps in _TICKS:
        ticks = [s * 10.0**k for k in decades for s in steps if low <= s * 10.0**k <= high]
        if len(ticks) >= fewest:
            break
    axis.yaxis.set_major_locator(FixedLocator(ticks))
    axis.yaxis.set_minor_locator(NullLocator())
    # Not as powers of ten in mathematical type, which takes seconds for a page of panels.
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


# From coarse to fine.
_TICKS: tuple[tuple[float, ...], ...] = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9),
    tuple(i / 10 for i in range(10, 100)),
    tuple(i / 50 for i in range(50, 500)),
)
