"""The figures of a comparison, from its record alone: what the pages show, too."""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.compare.tables import number
from experiments.analysis.figures import curves
from experiments.common.order_statistics import largest, smallest
from experiments.common.statistics import paired

PAIRING = "upper_pairing"


def differences_figure(record: Mapping[str, Any]) -> Figure | None:
    """Draw how much more accurate each method is than the base, seed by seed.

    Args:
        record: As ``make_record`` gives it, maybe through JSON.

    Returns:
        The figure; None if there is nothing to compare.
    """
    base, *others = record["arms"]
    if not others:
        return None
    theirs = [number(run["accuracy"]) for run in base["runs"]]
    colour = curves.colours([arm["name"] for arm in record["arms"]])
    with curves.styled():
        figure = curves.new_figure(9.5, 1.1 + 0.32 * len(others))
        axis = figure.subplots()
        for i, arm in enumerate(others):
            ours = [number(run["accuracy"]) for run in arm["runs"]]
            each = [100 * (a - b) for a, b in zip(ours, theirs, strict=True)]
            found = paired(ours, theirs)
            mark: Any = {"color": colour[arm["name"]]}
            axis.plot(each, [i + 0.18] * len(each), ".", ms=4, alpha=0.6, **mark)
            if not math.isnan(found.low):
                axis.hlines(i, 100 * found.low, 100 * found.high, lw=1.6, **mark)
            axis.plot([100 * found.mean], [i], "o", ms=5.5, **mark)
        axis.axvline(0, color=curves.MUTED, lw=1.2)
        axis.set_yticks(range(len(others)), [curves.label(arm["name"]) for arm in others])
        axis.set_ylim(len(others) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        name = curves.label(base["name"])
        axis.set_xlabel(f"test accuracy minus that of {name}, percentage points")
    return figure


def shift_figure(record: Mapping[str, Any]) -> Figure | None:
    """Draw the shift of every layer, and how loose the bounds on it are.

    Above, the median distance of each layer within its certificate, absolute and relative; below,
    the closest closed-form bound from either side in units of the distance, by layer and by epoch
    (the cost of the pairing of each sample with itself is a measurement, so it is left out).

    Args:
        record: As ``make_record`` gives it, maybe through JSON.

    Returns:
        The figure; None if nothing was probed.
    """
    arms = [arm for arm in record["arms"] if arm["distances"]]
    if not arms:
        return None
    colour = curves.colours([arm["name"] for arm in record["arms"]])
    with curves.styled():
        figure = curves.new_figure(9.5, 6.4)
        (absolute, relative), (by_layer, by_epoch) = figure.subplots(2, 2)
        for i, arm in enumerate(arms):
            shift: Any = {"color": colour[arm["name"]], "label": curves.label(arm["name"])}
            offset = 0.16 * (i - (len(arms) - 1) / 2)
            for axis, quantity in ((absolute, "absolute"), (relative, "relative")):
                _draw_distances(axis, arm, quantity, offset, shift)
            for axis, key in ((by_layer, "by_layer"), (by_epoch, "by_epoch")):
                _draw_bounds(axis, arm["looseness"], key, offset, shift)
        for axis in (absolute, relative, by_layer):
            curves.depth_ticks(axis, [row["layer"] for row in arms[0]["distances"]])
        for axis in (by_layer, by_epoch):
            axis.axhline(1, color=curves.MUTED, lw=1.2)
            axis.set_ylabel("bound / distance")
        by_epoch.set_xlabel("epoch")
        for axis in (absolute, relative, by_layer, by_epoch):
            axis.set_yscale("log")
            curves.plain_log(axis)
        handles, names = absolute.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=min(3, len(arms)))
    return figure


def _draw_distances(
    axis: Axes, arm: Mapping[str, Any], quantity: str, offset: float, style: Mapping[str, Any]
) -> None:
    found = [
        {name: number(value) for name, value in row[quantity].items()} for row in arm["distances"]
    ]
    ends = [
        [row["value"] - row["lower"] for row in found],
        [row["upper"] - row["value"] for row in found],
    ]
    x = [i + offset for i in range(len(found))]
    axis.errorbar(x, [r["value"] for r in found], ends, fmt="o", ms=4.5, capsize=2.5, **style)
    axis.set(title=f"{quantity} shift of one update, with certificate", xlabel=curves.DEPTH)


def _draw_bounds(
    axis: Axes, looseness: Mapping[str, Any], key: str, offset: float, style: Mapping[str, Any]
) -> None:
    bounds = looseness["bounds"]
    at = looseness["layers"] if key == "by_layer" else looseness["epochs"]
    above = [v[key] for name, v in bounds.items() if name.startswith("upper") and name != PAIRING]
    below = [v[key] for name, v in bounds.items() if name.startswith("lower")]
    upper = [smallest(map(number, values)) for values in zip(*above, strict=True)]
    lower = [largest(map(number, values)) for values in zip(*below, strict=True)]
    x = [i + offset for i in (range(len(at)) if key == "by_layer" else at)]
    axis.vlines(x, lower, upper, color=style["color"], alpha=0.25, lw=5)
    for ends in (lower, upper):
        axis.plot(x, ends, "_", ms=8, color=style["color"])
    axis.set(title="closest bounds in closed form", xlabel=curves.DEPTH)
