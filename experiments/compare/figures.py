"""The figure of a comparison: paired differences with their confidence intervals."""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from experiments import plots
from experiments.compare.statistics import paired


def differences_figure(record: Mapping[str, Any]) -> Figure | None:
    """Draws how much more accurate each method is than the base, seed by seed.

    Args:
        record: As ``make_record`` gives it, maybe through JSON.

    Returns:
        The figure; None if there is nothing to compare.
    """
    base, *others = record["arms"]
    if not others:
        return None
    theirs = [run["accuracy"] for run in base["runs"]]
    colour = plots.colours([arm["name"] for arm in record["arms"]])
    with plots.styled():
        figure = plots.new_figure(9.5, 1.1 + 0.32 * len(others))
        axis = figure.subplots()
        for i, arm in enumerate(others):
            ours = [run["accuracy"] for run in arm["runs"]]
            each = [100 * (a - b) for a, b in zip(ours, theirs, strict=True)]
            found = paired(ours, theirs)
            mark: Any = {"color": colour[arm["name"]]}
            axis.plot(each, [i + 0.18] * len(each), ".", ms=4, alpha=0.6, **mark)
            if not math.isnan(found.low):
                axis.hlines(i, 100 * found.low, 100 * found.high, lw=1.6, **mark)
            axis.plot([100 * found.mean], [i], "o", ms=5.5, **mark)
        axis.axvline(0, color=plots.MUTED, lw=1.2)
        axis.set_yticks(range(len(others)), [plots.label(arm["name"]) for arm in others])
        axis.set_ylim(len(others) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        name = plots.label(base["name"])
        axis.set_xlabel(f"test accuracy minus that of {name}, percentage points")
    return figure
