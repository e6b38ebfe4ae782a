"""The figures of a comparison, from its record alone: what the pages show, too."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.compare.record import number
from experiments.analysis.figures import style
from experiments.analysis.figures.looks import Look, dodge, looks
from experiments.analysis.names import label
from experiments.common.statistics import largest, mean_std, paired, smallest

PAIRING = "upper_pairing"
CROWDED = 48  # Marks, of layers times methods; more are joined to lines.


def differences_figure(record: Mapping[str, Any]) -> Figure | None:
    """Draw how much more accurate each method is than the base, seed by seed; the best is above.

    Args:
        record: As ``make_record`` gives it, maybe through JSON.

    Returns:
        The figure; None if there is nothing to compare.
    """
    base = record["arms"][0]
    others = [arm for arm in _by_result(record["arms"]) if arm is not base]
    if not others:
        return None
    theirs = [number(run["accuracy"]) for run in base["runs"]]
    look = looks([arm["name"] for arm in record["arms"]])
    with style.styled():
        figure = style.new_figure(9.5, 1.1 + 0.32 * len(others))
        axis = figure.subplots()
        for i, arm in enumerate(others):
            ours = [number(run["accuracy"]) for run in arm["runs"]]
            each = [100 * (a - b) for a, b in zip(ours, theirs, strict=True)]
            found, mine = paired(ours, theirs), look[arm["name"]]
            axis.plot(each, [i + 0.18] * len(each), ".", ms=4, alpha=0.6, color=mine.colour)
            if not math.isnan(found.low):
                axis.hlines(i, 100 * found.low, 100 * found.high, lw=1.6, color=mine.colour)
            axis.plot([100 * found.mean], [i], ms=5.5, **mine.point)
        axis.axvline(0, color=style.MUTED, lw=1.2)
        names = [style.cut(label(arm["name"]), 48) for arm in others]
        axis.set_yticks(range(len(others)), names)
        axis.set_ylim(len(others) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        name = style.cut(label(base["name"]), 60)
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
    look = looks([arm["name"] for arm in record["arms"]])
    names = [label(arm["name"]) for arm in _by_result(arms)]
    layers = list(dict.fromkeys(row["layer"] for arm in arms for row in arm["distances"]))
    crowded = len(layers) * len(arms) > CROWDED
    with style.styled():
        figure = style.new_figure(9.5, 6.1 + style.legend_height(names, 9.5))
        (absolute, relative), (by_layer, by_epoch) = figure.subplots(2, 2)
        for i, arm in enumerate(arms):
            mine, offset = look[arm["name"]], 0.0 if crowded else dodge(i, len(arms))
            for axis, quantity in ((absolute, "absolute"), (relative, "relative")):
                _draw_distances(axis, arm, quantity, layers, offset, mine, crowded)
            for axis, key, count in (
                (by_layer, "by_layer", len(layers)),
                (by_epoch, "by_epoch", len(arm["looseness"]["epochs"])),
            ):
                thick = min(5.0, 130 / (max(count, 1) * len(arms)))  # Of about 270 points.
                lines = crowded and key == "by_layer"
                place = 0.0 if lines else dodge(i, len(arms))
                _draw_bounds(axis, arm, key, layers, place, mine, None if lines else thick)
        for axis in (absolute, relative, by_layer):
            style.depth_ticks(axis, layers, 0.5)
        for axis in (by_layer, by_epoch):
            axis.axhline(1, color=style.MUTED, lw=1.2)
            axis.set_ylabel("bound / distance")
        by_epoch.set_xlabel("epoch")
        for axis in (absolute, relative, by_layer, by_epoch):
            axis.set_yscale("log")
            style.plain_log(axis)
        style.legend(figure, [absolute], names)
    return figure


def _by_result(arms: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the arms, the most accurate first; those without a number last."""

    def key(arm: Mapping[str, Any]) -> float:
        mean = mean_std([number(run["accuracy"]) for run in arm["runs"]])[0]
        return 1.0 if math.isnan(mean) else -mean

    return sorted(arms, key=key)


def _draw_distances(
    axis: Axes,
    arm: Mapping[str, Any],
    quantity: str,
    layers: list[str],
    offset: float,
    look: Look,
    crowded: bool,
) -> None:
    found = [
        {name: number(value) for name, value in row[quantity].items()} for row in arm["distances"]
    ]
    x = [layers.index(row["layer"]) + offset for row in arm["distances"]]
    values, name = [row["value"] for row in found], label(arm["name"])
    if crowded:
        axis.plot(x, values, label=name, **look.marked(len(x)) | {"lw": 1.1, "ms": 3.5})
    else:
        ends = [
            [row["value"] - row["lower"] for row in found],
            [row["upper"] - row["value"] for row in found],
        ]
        axis.errorbar(x, values, ends, capsize=2.5, label=name, **look.point)
    what = f"{quantity} shift of one update" + ("" if crowded else ", with certificate")
    axis.set(title=what, xlabel=style.DEPTH)


def _draw_bounds(
    axis: Axes,
    arm: Mapping[str, Any],
    key: str,
    layers: list[str],
    offset: float,
    look: Look,
    thick: float | None,
) -> None:
    """Draw a bar, so thick, from the best lower to the best upper bound; None: a line of each."""
    looseness = arm["looseness"]
    bounds = looseness["bounds"]
    above = [v[key] for name, v in bounds.items() if name.startswith("upper") and name != PAIRING]
    below = [v[key] for name, v in bounds.items() if name.startswith("lower")]
    upper = [smallest(map(number, values)) for values in zip(*above, strict=True)]
    lower = [largest(map(number, values)) for values in zip(*below, strict=True)]
    by_layer = key == "by_layer"
    at = map(layers.index, looseness["layers"]) if by_layer else looseness["epochs"]
    x = [i + offset for i in at]
    if thick is not None:
        axis.vlines(x, lower, upper, color=look.colour, alpha=0.25, lw=thick)
    for ends in (lower, upper):
        if thick is None:
            axis.plot(x, ends, lw=0.9, **look.line)
        else:
            axis.plot(x, ends, "_", ms=1.6 * thick, color=look.colour)
    axis.set(title="closest bounds in closed form", xlabel=style.DEPTH)
