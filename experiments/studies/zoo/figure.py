"""One row for every method, one panel for every measurement."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from experiments.analysis.figures.looks import COLOURS
from experiments.analysis.figures.style import MUTED, new_figure, styled
from experiments.analysis.names import label
from experiments.studies.zoo.config import ZooConfig
from experiments.studies.zoo.summary import Entry


def methods_figure(entries: list[Entry], config: ZooConfig) -> Figure:
    """Draw what has been measured.

    Args:
        entries: Of ``summary.read_entries``.
        config: The options.
    """
    base = label(config.base)
    panels: list[tuple[str, Callable[[Entry], Any], bool]] = [
        ("test accuracy, %", _accuracies, False),
        (f"updates to {100 * config.target_accuracy:g} %", _updates, False),
        (f"update time\n/ {base}", _times, False),
        (f"shift\n/ {base},\neach layer", lambda e: _ratios(e, "absolute"), True),
        (f"relative shift\n/ {base},\neach layer", lambda e: _ratios(e, "relative"), True),
        ("smallest batch\n(cross: none trained)", lambda e: [], True),
    ]
    with styled():
        figure = new_figure(13, 1.6 + 0.3 * len(entries))
        axes = figure.subplots(1, len(panels), sharey=True)
        for axis, (title, values, logarithmic) in zip(axes, panels, strict=True):
            axis.set_title(title, fontsize=9)
            for y, entry in enumerate(entries):
                _points(axis, y, values(entry))
            if logarithmic:
                axis.set_xscale("log")
                axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
                axis.xaxis.set_minor_locator(NullLocator())
        for y, entry in enumerate(entries):
            _batch(axes[-1], y, entry, config)
        axes[-1].set_xticks(config.batch_sizes, list(map(str, config.batch_sizes)))
        for axis in axes[2:5]:
            axis.axvline(1, color=MUTED, lw=0.8)
        axes[0].set_yticks(range(len(entries)), [label(e["method"]) for e in entries])
        axes[0].invert_yaxis()
        seeds = len(config.seeds)
        figure.suptitle(
            f"{config.dataset}, {config.epochs} epoch{'s' if config.epochs > 1 else ''}; dots are "
            f"seeds, n = {seeds} (in the shifts, layers); bars their median",
            fontsize=10,
        )
    return figure


def _points(axis: Axes, y: int, values: list[float]) -> None:
    finite = [value for value in values if np.isfinite(value)]
    if finite:
        spread = np.linspace(-0.2, 0.2, len(finite)) if len(finite) > 1 else [0.0]
        axis.plot(finite, y + np.asarray(spread), ".", color=COLOURS[0], ms=5)
        axis.plot([np.median(finite)] * 2, [y - 0.35, y + 0.35], color=COLOURS[1], lw=1.5)


def _accuracies(entry: Entry) -> list[float]:
    return [100 * r["accuracy"] for r in entry.get("train", {}).get("results", [])]


def _updates(entry: Entry) -> list[float]:
    results = entry.get("train", {}).get("results", [])
    return [r["updates_to_target"] for r in results if r["updates_to_target"] is not None]


def _times(entry: Entry) -> list[float]:
    return [entry["time"]["ratio"]] if "time" in entry else []


def _ratios(entry: Entry, quantity: str) -> list[float]:
    return [float(pair["ratio"]) for pair in entry.get("shift", {}).get(quantity, [])]


def _batch(axis: Axes, y: int, entry: Entry, config: ZooConfig) -> None:
    if "batch" in entry:
        smallest = entry["batch"]["smallest"]
        marker = "o" if smallest else "x"
        axis.plot(smallest or config.batch_sizes[0], y, marker, color=COLOURS[0], ms=6)
