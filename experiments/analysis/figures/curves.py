"""The figures of a run's training: loss, accuracy, and alpha by depth."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.figures import style
from experiments.analysis.figures.looks import Look, dodge, looks
from experiments.analysis.results import Results, RunRows, group

MANY = 24  # Layers; of more, figures show lines, without bars.


def plot_curves(results: Results, path: Path) -> None:
    """Draw test accuracy, training loss and alpha by depth; write a PNG.

    Lines are means over seeds; bands and bars are one sample standard deviation to each side.

    Args:
        results: Of a finished run.
        path: The PNG to write.
    """
    with style.styled():
        alphas = has_alpha(results.runs)
        width = 14 if alphas else 9.5
        figure = style.new_figure(width, 3.9 + style.legend_height(_labels(results), width))
        axes = figure.subplots(1, 3 if alphas else 2)
        draw_curves(axes[:2], results)
        if alphas:
            draw_alphas(axes[2], results, 1 / 3)
        _legend(figure, results, "lower")
        figure.suptitle(style.cut(f"{results.title}; {spread(results.runs)}", 95), fontsize=11)
        figure.savefig(path, dpi=120)


def curves_figure(results: Results) -> Figure:
    """Return the figure of test accuracy and training loss alone."""
    with style.styled():
        figure = style.new_figure(9.5, 3.5 + style.legend_height(_labels(results), 9.5))
        draw_curves(figure.subplots(1, 2), results)
        _legend(figure, results)
    return figure


def alphas_figure(results: Results) -> Figure:
    """Return the figure of alpha by depth alone."""
    with style.styled():
        figure = style.new_figure(6.5, 3.3 + style.legend_height(_labels(results), 6.5))
        draw_alphas(figure.subplots(), results)
        _legend(figure, results)
    return figure


def spread(runs: Sequence[RunRows]) -> str:
    """Say what lines and bands are."""
    n = len({run.seed for run in runs})
    return f"n = {n} seeds, mean ± sample standard deviation" if n > 1 else "one seed"


def has_alpha(runs: Sequence[RunRows]) -> bool:
    """Return whether any of the norms has an alpha."""
    return any(_alpha_names(run) for run in runs)


def draw_curves(axes: Sequence[Axes], results: Results) -> None:
    """Draw test accuracy into the first axes, all that a phone shows, and training loss."""
    groups, look = group(results.runs), looks(results.names)
    accuracy, loss = axes
    accuracy.set(xlabel="update", ylabel="test accuracy, %")
    loss.set(xlabel="update", ylabel="training cross-entropy, nats", yscale="log")
    few = len(groups) <= style.FEW
    for norm, runs in groups.items():
        steps = np.array([row["step"] for row in runs[0].eval])
        accuracies = [[100 * row["accuracy"] for row in run.eval] for run in runs]
        _band(accuracy, steps, np.array(accuracies), look[norm], results.label(norm), few)
        losses = [_stretch_means(run) for run in runs]
        _band(loss, steps, np.array(losses), look[norm], results.label(norm), few)
    style.plain_log(loss)
    # The interesting part is near the end, unless some norm never got there.
    worst = min(100 * run.eval[-1]["accuracy"] for run in results.runs)
    accuracy.set_ylim(80 if worst > 85 else 0, 100.5)
    target = results.summary["target_accuracy"]
    accuracy.axhline(100 * target, color=style.MUTED, lw=0.9, label=_target(results))


def draw_alphas(axis: Axes, results: Results, share: float = 1.0) -> None:
    """Draw the mean alpha of each layer after training, for the norms that have one.

    Args:
        axis: Drawn into.
        results: Of a finished run.
        share: Of the figure's width that the axes have.
    """
    look = looks(results.names)
    groups = {
        norm: found
        for norm, runs in group(results.runs).items()
        if (found := [run for run in runs if _alpha_names(run)])
    }
    layers = list(dict.fromkeys(name for runs in groups.values() for name in _alpha_names(runs[0])))
    for i, (norm, runs) in enumerate(groups.items()):
        names = _alpha_names(runs[0])
        values = np.array([[run.eval[-1][name] for name in names] for run in runs])
        x = np.array([layers.index(name) for name in names])
        _error_bars(axis, x, values, look[norm], results.label(norm), dodge(i, len(groups)))
    axis.axhline(0, color=style.MUTED, lw=0.9, label=NO_ALPHA)
    axis.set(xlabel=style.DEPTH, ylabel="mean alpha after training")
    style.depth_ticks(axis, [name.removeprefix("alpha/") for name in layers], share)


NO_ALPHA = "alpha = 0: batch normalization"


def _target(results: Results) -> str:
    return f"target, {100 * results.summary['target_accuracy']:g} %"


def _labels(results: Results) -> list[str]:
    more = [NO_ALPHA] if has_alpha(results.runs) else []
    return [*results.labelled(results.by_result), _target(results), *more]


def _legend(figure: Figure, results: Results, where: str = "upper") -> None:
    names = _labels(results)
    first = names[: len(results.names)]
    style.legend(figure, figure.axes, first, names[len(first) :], where)


def _stretch_means(run: RunRows) -> list[float]:
    """Return the mean training loss of each stretch between two evaluations."""
    bounds = [0, *(row["step"] for row in run.eval)]
    losses = np.array([row["cross_entropy"] for row in run.train])
    return [float(np.mean(losses[a:b])) for a, b in itertools.pairwise(bounds)]


def _alpha_names(run: RunRows) -> list[str]:
    return [name for name in run.eval[-1] if name.startswith("alpha/")]


def _band(axis: Axes, x: np.ndarray, values: np.ndarray, look: Look, name: str, few: bool) -> None:
    mean = values.mean(axis=0)  # (seeds, x) -> (x,)
    axis.plot(x, mean, label=name, **look.marked(len(x)))
    if len(values) > 1 and few:
        std = values.std(axis=0, ddof=1)
        # A logarithmic axis has no place for a lower edge below zero.
        low = np.maximum(mean - std, 1e-2 * mean) if axis.get_yscale() == "log" else mean - std
        axis.fill_between(x, low, mean + std, color=look.colour, alpha=0.2, linewidth=0)


def _error_bars(
    axis: Axes, x: np.ndarray, values: np.ndarray, look: Look, name: str, offset: float
) -> None:
    std = values.std(axis=0, ddof=1) if len(values) > 1 else None  # (seeds, layers) -> (layers,)
    mean = values.mean(axis=0)
    if len(x) > MANY:
        axis.plot(x, mean, label=name, **look.marked(len(x)))
        return
    bar: Any = look.line | {"marker": look.marker, "capsize": 2.5, "lw": 1.2}
    axis.errorbar(x + offset, mean, std, label=name, **bar)
