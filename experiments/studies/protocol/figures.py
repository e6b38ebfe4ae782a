"""The figures of the study: accuracy by epoch, and every measure of shift by layer."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from experiments.analysis.compare.combine import Compared
from experiments.analysis.figures import style
from experiments.analysis.figures.looks import Look, looks
from experiments.analysis.figures.panels import all_layers, positive
from experiments.analysis.results import Results
from experiments.common.statistics import median
from experiments.studies.measures.summary import shown
from experiments.studies.protocol.runs import MEASURES, layer_ratios


def accuracy_figure(compared: Compared) -> Figure:
    """Return test accuracy by epoch, and paired differences from BatchNorm.

    Thick: means, in the shade of their 95 % intervals (Student's t); thin: each seed.
    """
    results = compared.results
    look, (base, *others) = looks(results.names), results.names
    names = results.labelled(results.by_result)
    found = {norm: _accuracies(results, norm) for norm in results.names}
    with style.styled():
        figure = style.new_figure(9.5, 3.5 + style.legend_height(names, 9.5))
        accuracy, difference = figure.subplots(1, 2)
        for norm in results.names:
            _lines(accuracy, found[norm], look[norm], results.label(norm))
        for norm in others:
            _lines(difference, found[norm] - found[base], look[norm], results.label(norm))
        difference.axhline(0, color=style.MUTED, lw=1.2)
        for axis in (accuracy, difference):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        accuracy.set(xlabel="epoch", ylabel="test accuracy, %")
        # Of three seeds an interval can be wider than all accuracies there are.
        accuracy.set_ylim(*_padded(np.concatenate(list(found.values()))))
        name = style.cut(results.label(base), 30)
        difference.set(xlabel="epoch", ylabel=f"minus {name}, percentage points")
        if others:  # The first epochs would hide the last ones.
            every = np.concatenate([found[norm] - found[base] for norm in others])
            most = 1.3 * np.abs(every[:, every.shape[1] * 3 // 4 :]).max()
            difference.set_ylim(-max(most, 0.1), max(most, 0.1))
        style.legend(figure, [accuracy], names)
    return figure


def measures_figure(compared: Compared) -> Figure:
    """Return a panel for every measure: how far each layer moved against BatchNorm.

    Lines: medians over seeds; dots: each seed, medians over updates.
    """
    results = compared.results
    look, layers = looks(results.names), all_layers(results)
    base, *others = results.names
    names = [f"{results.label(base)} = 1", *results.labelled(others)]
    with style.styled():
        figure = style.new_figure(11, 8.6 + style.legend_height(names, 11))
        axes = style.panels(figure, len(MEASURES), 4, sharex=True)
        for axis, measure in zip(axes, MEASURES, strict=True):
            axis.axhline(1, lw=1.3, label=names[0], **look[base].line)
            for norm in others:
                found = layer_ratios(compared, norm, measure)
                x = [layers.index(layer.layer) for layer in found]
                line: Any = look[norm].marked(len(x), 6) | {"ms": 3.5, "lw": 1.3}
                middle = positive([median(layer.seeds) for layer in found])
                axis.plot(x, middle, label=results.label(norm), **line)
                for at, layer in zip(x, found, strict=True):
                    seeds = positive(layer.seeds)
                    axis.plot([at] * len(seeds), seeds, ".", ms=2.5, color=look[norm].colour)
            axis.set_title(shown(measure), fontsize=9)
            axis.set_yscale("log")
            style.plain_log(axis)
            style.depth_ticks(axis, layers, 0.22)
        figure.supxlabel(style.DEPTH, fontsize=9)
        figure.supylabel(f"ratio to {results.label(base)}", fontsize=9)
        style.legend(figure, axes, names)
    return figure


def _accuracies(results: Results, norm: str) -> np.ndarray:
    """Return test accuracies, %, (seeds, epochs)."""
    runs = [run for run in results.runs if run.norm == norm]
    return np.array([[100 * row["accuracy"] for row in run.eval] for run in runs])


def _padded(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * max(high - low, 0.1)
    return low - margin, high + margin


def _lines(axis: Axes, values: np.ndarray, look: Look, name: str) -> None:
    x, mean, n = np.arange(1, values.shape[1] + 1), values.mean(0), len(values)
    axis.plot(x, mean, label=name, lw=1.7, **look.marked(len(x), 5))
    if n > 1:
        half = stats.t.ppf(0.975, n - 1) * values.std(0, ddof=1) / np.sqrt(n)
        axis.fill_between(x, mean - half, mean + half, color=look.colour, alpha=0.15, lw=0)
        axis.plot(x, values.T, color=look.colour, lw=0.6, alpha=0.6)
