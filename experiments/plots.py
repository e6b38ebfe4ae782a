"""The figure of a run folder."""

import itertools
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.loop import Run

# Okabe and Ito's colours: told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
NAMES = {"bn": "BatchNorm", "ubn": "UnitizedBatchNorm", "gn": "GroupNorm", "none": "no norm"}


def plot_curves(runs: list[Run], path: Path, title: str, target: float) -> None:
    """Draws training loss, test accuracy and alpha by depth; writes a PNG.

    Lines are means over seeds; bands and bars are one sample standard deviation to each side.

    Args:
        runs: Finished runs: every norm with every seed.
        path: The PNG to write.
        title: Says what was trained, on what data.
        target: Accuracy to mark, in [0, 1].
    """
    norms = list(dict.fromkeys(run.program.norm for run in runs))
    groups = {norm: [run for run in runs if run.program.norm == norm] for norm in norms}
    with_alpha = [norm for norm in norms if _alpha_names(groups[norm][0])]
    # No pyplot: it would choose a display.
    figure = Figure(figsize=(14 if with_alpha else 9.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3 if with_alpha else 2)
    axes[0].set(xlabel="update", ylabel="training cross-entropy, nats", yscale="log")
    axes[1].set(xlabel="update", ylabel="test accuracy, %")
    for colour, norm in zip(COLOURS, norms, strict=False):
        label = NAMES.get(norm, norm)
        group = groups[norm]
        steps = np.array([row["step"] for row in group[0].eval_rows])
        losses = [_stretch_means(run) for run in group]
        _band(axes[0], steps, np.array(losses), colour, label)
        accuracies = [[100 * row["accuracy"] for row in run.eval_rows] for run in group]
        _band(axes[1], steps, np.array(accuracies), colour, label)
        if norm in with_alpha:
            names = _alpha_names(group[0])
            alphas = [[run.eval_rows[-1][name] for name in names] for run in group]
            _error_bars(axes[2], np.array(alphas), colour, label)
            # Dozens of layers would print over one another.
            shown = np.arange(0, len(names), max(1, len(names) // 10))
            axes[2].set_xticks(shown, [_short(names[i]) for i in shown])
    # The interesting part is near the end, unless some norm never got there.
    worst = min(100 * run.eval_rows[-1]["accuracy"] for run in runs)
    axes[1].set_ylim(80 if worst > 85 else 0, 100.5)
    axes[1].axhline(100 * target, color="0.5", linestyle=":", label=f"{100 * target:g} %")
    if with_alpha:
        axes[2].axhline(0, color="0.5", linestyle=":", label="start")
        axes[2].set(xlabel="layer, by depth (block.norm)", ylabel="mean alpha after training")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    n = len(groups[norms[0]])
    spread = "mean ± sample standard deviation" if n > 1 else "one seed"
    figure.suptitle(f"{title}; n = {n}, {spread}", fontsize=11)
    figure.savefig(path, dpi=120)


def _stretch_means(run: Run) -> list[float]:
    """Returns the mean training loss of each stretch between two evaluations."""
    bounds = [0, *(row["step"] for row in run.eval_rows)]
    losses = np.array([row["cross_entropy"] for row in run.train_rows])
    return [float(np.mean(losses[a:b])) for a, b in itertools.pairwise(bounds)]


def _alpha_names(run: Run) -> list[str]:
    return [name for name in run.eval_rows[-1] if name.startswith("alpha/")]


def _short(name: str) -> str:
    """Returns ``0.1`` for ``alpha/block_0/norm_1``, ``stem`` for ``alpha/stem_norm``."""
    parts = name.removeprefix("alpha/").split("/")
    if len(parts) == 1:
        return parts[0].removesuffix("_norm")
    return ".".join(part.split("_")[-1] for part in parts)


def _band(axis: Axes, x: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    mean = values.mean(axis=0)  # (seeds, x) -> (x,)
    axis.plot(x, mean, color=colour, label=label)
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        # A logarithmic axis has no place for a lower edge below zero.
        low = np.maximum(mean - std, 1e-2 * mean) if axis.get_yscale() == "log" else mean - std
        axis.fill_between(x, low, mean + std, color=colour, alpha=0.2, linewidth=0)


def _error_bars(axis: Axes, values: np.ndarray, colour: str, label: str) -> None:
    std = values.std(axis=0, ddof=1) if len(values) > 1 else None  # (seeds, layers) -> (layers,)
    x = np.arange(values.shape[1])
    axis.errorbar(x, values.mean(axis=0), std, color=colour, label=label, marker="o", capsize=3)
