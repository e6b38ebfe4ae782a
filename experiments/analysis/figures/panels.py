"""One panel per layer: the distances of all norms over updates, between their bounds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from experiments.analysis.comparison import QUANTITIES
from experiments.analysis.figures import style
from experiments.analysis.figures.looks import Look, looks
from experiments.analysis.results import Results
from experiments.common.statistics import median
from unitnorm_jax.ics import best_bounds, row_name

MAX_LAYERS = 12  # Panels; deeper networks show every k-th layer.
MAX_STEPS = 120  # Measurements drawn of each line; longer runs show every k-th.
UNITS = {"absolute": "EM distance", "relative": "EM distance / spread"}
NOT_FINITE = "output not finite"
UNPROVEN = "certificate open"
BOUNDS = "closed-form bounds"
MARKS = (BOUNDS, UNPROVEN, NOT_FINITE)


def all_layers(results: Results) -> list[str]:
    """Return the probed layers of all norms, from input to output."""
    layers: dict[str, None] = {}
    for norm in results.probed():
        for rows in results.ics(norm).values():
            layers.update(dict.fromkeys(row_name(row) for row in rows))
    return list(layers)


def shown_layers(results: Results) -> list[str]:
    """Return the layers that are drawn: at most ``MAX_LAYERS``, every k-th."""
    layers = all_layers(results)
    return layers[:: -(-len(layers) // MAX_LAYERS)]


def panel_size(results: Results) -> tuple[float, float]:
    """Return width and height of the figure that the panels want, inches."""
    columns = _columns(results)
    width = max(2.6 * columns + 0.6, 7)
    lines = math.ceil(len(shown_layers(results)) / columns)
    return width, 2.1 * lines + 0.6 + style.legend_height(_entries(results), width)


def draw_distances(figure: Figure | SubFigure, results: Results, quantity: str) -> None:
    """Draw one panel per layer: each norm's distance over updates, between the bounds.

    Thick: median over seeds; thin: one seed, in the shade of its certificate (nearly always thinner
    than the line). Wide band: from the best closed-form lower bound to the best upper one (medians
    over seeds), but for the pairing's cost, which nearly is the distance. Hollow marks: the
    certificate stayed open. Crosses on the axis: the output was not finite. Of more than
    ``style.FEW`` methods only the medians and these marks are drawn.

    Args:
        figure: Drawn into.
        results: Of the run.
        quantity: "relative": all panels share one scale; "absolute": each has its own.
    """
    layers, columns = shown_layers(results), _columns(results)
    relative = quantity == "relative"
    axes = style.panels(figure, len(layers), columns, sharex=True, sharey=relative)
    look, few = looks(results.names), len(results.probed()) <= style.FEW
    drawn = []
    for axis, layer in zip(axes, layers, strict=True):
        lines = [
            _draw_norm(
                axis, results.ics(norm), layer, quantity, look[norm], results.label(norm), few
            )
            for norm in results.probed()
        ]
        drawn.append(np.concatenate(lines))
        d = next(r["d"] for r in _all_rows(results) if row_name(r) == layer)
        axis.set_title(f"{style.cut(layer, 22)}  (d = {d})", fontsize=9)
    if relative:
        _limit(axes, np.concatenate(drawn))
    else:
        for axis, values in zip(axes, drawn, strict=True):
            _limit([axis], values)
    style.legend(figure, axes, results.labelled(results.by_result), MARKS)
    figure.supylabel(UNITS[quantity], fontsize=9)
    first = next(iter(_all_rows(results)))
    updates = f"{first['lag']} update" + ("s" if first["lag"] > 1 else "")
    figure.supxlabel(
        f"update (shift over {updates}, {first['mode']} mode, n = {first['n']} images)", fontsize=9
    )


def _draw_norm(
    axis: Axes,
    by_seed: Mapping[int, Sequence[Mapping[str, Any]]],
    layer: str,
    quantity: str,
    look: Look,
    name: str,
    few: bool,
) -> np.ndarray:
    """Draw one norm into the panel of one layer; return what must not be cut off below."""
    value, lower, upper = QUANTITIES[quantity]
    colour = look.colour
    seeds = [[row for row in rows if row_name(row) == layer] for rows in by_seed.values()]
    seeds = [rows[:: -(-len(rows) // MAX_STEPS)] for rows in seeds if rows]
    if not seeds:
        return np.array([])
    for rows in seeds if few else ():
        steps = [row["step"] for row in rows]
        low, high = (positive([row[end] for row in rows]) for end in (lower, upper))
        axis.fill_between(steps, low, high, color=colour, alpha=0.3, lw=0, zorder=2.4)
        if len(seeds) > 1:
            distances = positive([row[value] for row in rows])
            axis.plot(steps, distances, color=colour, alpha=0.45, lw=0.6, zorder=2.5)
    count = min(len(rows) for rows in seeds)
    steps = [row["step"] for row in seeds[0][:count]]

    def over_seeds(column: Any) -> np.ndarray:
        values = np.array([[column(row) for row in rows[:count]] for rows in seeds])
        return positive([median(column) for column in values.T])

    line = over_seeds(lambda row: row[value])
    marked = look.marked(len(steps), 4) | {"ms": 3.5}
    axis.plot(steps, line, lw=1.7 if few else 1.2, zorder=3, label=name, **marked)

    def bound(side: int) -> np.ndarray:
        return over_seeds(
            lambda row: (
                best_bounds(row)[side]
                / (1.0 if quantity == "absolute" else row["spread"] or math.nan)
            )
        )

    kept = [line]
    if few:
        below, above = bound(0), bound(1)
        axis.fill_between(steps, below, above, color=colour, alpha=0.06, lw=0, zorder=0.5)
        for edge, legend in ((below, BOUNDS), (above, "_")):
            axis.plot(steps, edge, color=colour, alpha=0.5, lw=0.6, zorder=0.6, label=legend)
        kept.append(below)
    still_open = [row for rows in seeds for row in rows if not row["exact"] and not row["reason"]]
    if still_open:
        axis.plot(
            [row["step"] for row in still_open],
            positive([row[value] for row in still_open]),
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
    return np.concatenate(kept)


def _limit(axes: Sequence[Axes], values: np.ndarray) -> None:
    """Give axes that show the values one logarithmic scale, down to nearly the smallest.

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
        style.plain_log(axis)


def _entries(results: Results) -> list[str]:
    return [*results.labelled(results.probed()), *MARKS]


def _columns(results: Results) -> int:
    return min(4, len(shown_layers(results)))


def _all_rows(results: Results) -> Sequence[Mapping[str, Any]]:
    return [row for run in results.runs for row in run.ics]


def positive(values: Any) -> np.ndarray:
    """For a logarithmic axis: what it cannot show is left out."""
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
