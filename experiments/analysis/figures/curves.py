"""The figures of a run: training curves and alpha by depth, and what all figures share."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from experiments.analysis.results import RunRows, group

# Okabe and Ito's colours: told apart with any colour vision.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Each means one thing only, so that a page can exchange it for its own (analysis/page).
INK, MUTED, GRID, PAPER = "#1b1b1f", "#6b6b73", "#dcdce1", "#fefefe"
NAMES = {
    "bn": "BatchNorm",
    "ubn": "UnitizedBatchNorm",
    "gn": "GroupNorm",
    "none": "no norm",
    "bn-slices": "BatchNorm of slices",
    "kalman": "BatchKalmanNorm",
    "kalman-published": "BatchKalmanNorm, as published",
}
STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), PAPER),
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "font.size": 9,
    "legend.frameon": False,
}


@contextmanager
def styled() -> Iterator[None]:
    """Make figures drawn inside look alike; what is set outside is restored."""
    with matplotlib.rc_context(STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, inches. Not by pyplot, which would choose a display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels(figure: Figure | SubFigure, count: int, columns: int, **share: Any) -> list[Axes]:
    """Return the axes of so many panels, in lines of ``columns``.

    Args:
        figure: Drawn into.
        count: Number of panels.
        columns: Panels side by side.
        **share: ``sharex`` and ``sharey``, as for ``Figure.subplots``.
    """
    grid = figure.subplots(math.ceil(count / columns), columns, squeeze=False, **share)
    axes = list(grid.flat)
    for axis in axes[count:]:
        axis.remove()
    for axis in axes[max(count - columns, 0) : count]:
        axis.tick_params(labelbottom=True)
    return axes[:count]


def legend(
    figure: Figure | SubFigure,
    axes: Iterable[Axes],
    last: Sequence[str] = (),
    columns: int = 4,
    where: str = "upper",
) -> None:
    """Write one legend of all panels, each name once.

    Args:
        figure: Of the panels.
        axes: The panels.
        last: Names that come after all others, in this order.
        columns: Names side by side.
        where: Above the panels, "upper", or, if the figure has a title there, "lower".
    """
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    order = sorted(entries, key=lambda name: last.index(name) if name in last else -1)
    handles = [entries[name] for name in order]
    at: Any = f"outside {where} left"
    figure.legend(handles, order, loc=at, ncols=columns, fontsize=8)


def colours(norms: Sequence[str]) -> dict[str, str]:
    """Return the colour of each norm, in the order of the configuration."""
    return dict(zip(norms, itertools.cycle(COLOURS), strict=False))


def label(norm: str) -> str:
    """Return the name of ``norm`` in a legend."""
    return NAMES.get(norm, norm)


def short(layer: str) -> str:
    """Return a name for an axis.

    Example:
        >>> short("block_0/norm_1"), short("stem_norm")
        ('0.1', 'stem')
    """
    parts = layer.split("/")
    if len(parts) == 1:
        return parts[0].removesuffix("_norm")
    return ".".join(part.split("_")[-1] for part in parts)


def plot_curves(runs: Sequence[RunRows], path: Path, title: str, target: float) -> None:
    """Draw training loss, test accuracy and alpha by depth; write a PNG.

    Lines are means over seeds; bands and bars are one sample standard deviation to each side.

    Args:
        runs: Finished runs: every norm with every seed.
        path: The PNG to write.
        title: Says what was trained, on what data.
        target: Accuracy to mark, in [0, 1].
    """
    with styled():
        alphas = has_alpha(runs)
        figure = new_figure(14 if alphas else 9.5, 4.2)
        axes = figure.subplots(1, 3 if alphas else 2)
        draw_curves(axes[:2], runs, target)
        if alphas:
            draw_alphas(axes[2], runs)
        figure.suptitle(f"{title}; {spread(runs)}", fontsize=11)
        figure.savefig(path, dpi=120)


def curves_figure(runs: Sequence[RunRows], target: float) -> Figure:
    """Return the figure of training loss and test accuracy alone."""
    with styled():
        figure = new_figure(9.5, 3.8)
        draw_curves(figure.subplots(1, 2), runs, target)
    return figure


def alphas_figure(runs: Sequence[RunRows]) -> Figure:
    """Return the figure of alpha by depth alone."""
    with styled():
        figure = new_figure(6.5, 3.6)
        draw_alphas(figure.subplots(), runs)
    return figure


def spread(runs: Sequence[RunRows]) -> str:
    """Say what lines and bands are."""
    n = len({run.seed for run in runs})
    return f"n = {n} seeds, mean ± sample standard deviation" if n > 1 else "one seed"


def has_alpha(runs: Sequence[RunRows]) -> bool:
    """Return whether any of the norms has an alpha."""
    return any(_alpha_names(run) for run in runs)


def draw_curves(axes: Sequence[Axes], runs: Sequence[RunRows], target: float) -> None:
    """Draw training loss into the first axes and test accuracy into the second."""
    groups = group(runs)
    axes[0].set(xlabel="update", ylabel="training cross-entropy, nats", yscale="log")
    axes[1].set(xlabel="update", ylabel="test accuracy, %")
    for norm, colour in colours(list(groups)).items():
        steps = np.array([row["step"] for row in groups[norm][0].eval])
        losses = [_stretch_means(run) for run in groups[norm]]
        _band(axes[0], steps, np.array(losses), colour, label(norm))
        accuracies = [[100 * row["accuracy"] for row in run.eval] for run in groups[norm]]
        _band(axes[1], steps, np.array(accuracies), colour, label(norm))
    plain_log(axes[0])
    # The interesting part is near the end, unless some norm never got there.
    worst = min(100 * run.eval[-1]["accuracy"] for run in runs)
    axes[1].set_ylim(80 if worst > 85 else 0, 100.5)
    axes[1].axhline(100 * target, color=MUTED, linestyle=":", label=f"{100 * target:g} %")
    for axis in axes:
        axis.legend()


def draw_alphas(axis: Axes, runs: Sequence[RunRows]) -> None:
    """Draw the mean alpha of each layer after training, for the norms that have one."""
    groups = group(runs)
    for norm, colour in colours(list(groups)).items():
        names = _alpha_names(groups[norm][0])
        if names:
            alphas = [[run.eval[-1][name] for name in names] for run in groups[norm]]
            _error_bars(axis, np.array(alphas), colour, label(norm))
            depth_ticks(axis, [name.removeprefix("alpha/") for name in names])
    axis.axhline(0, color=MUTED, linestyle=":", label="0: batch normalization")
    axis.set(xlabel=DEPTH, ylabel="mean alpha after training")
    axis.legend()


DEPTH = "layer, by depth (block.norm)"


def depth_ticks(axis: Axes, layers: Sequence[str], most: int = 12) -> None:
    """Name the layers at 0, 1, ... on the x axis; dozens would print over one another."""
    shown = range(0, len(layers), max(1, -(-len(layers) // most)))
    axis.set_xticks(list(shown), [short(layers[i]) for i in shown])


def plain_log(axis: Axes, fewest: int = 4) -> None:
    """Label a logarithmic axis with plain numbers, however little of a decade it spans."""
    low, high = axis.get_ylim()
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    for steps in _TICKS:
        ticks = [s * 10.0**k for k in decades for s in steps if low <= s * 10.0**k <= high]
        if len(ticks) >= fewest:
            break
    else:  # On a short piece of it equal steps are nearly equal distances.
        even = MaxNLocator(2 * fewest, steps=[1, 2, 5, 10]).tick_values(low, high)
        ticks = [tick for tick in even if low <= tick <= high]
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
)


def _stretch_means(run: RunRows) -> list[float]:
    """Return the mean training loss of each stretch between two evaluations."""
    bounds = [0, *(row["step"] for row in run.eval)]
    losses = np.array([row["cross_entropy"] for row in run.train])
    return [float(np.mean(losses[a:b])) for a, b in itertools.pairwise(bounds)]


def _alpha_names(run: RunRows) -> list[str]:
    return [name for name in run.eval[-1] if name.startswith("alpha/")]


def _band(axis: Axes, x: np.ndarray, values: np.ndarray, colour: str, name: str) -> None:
    mean = values.mean(axis=0)  # (seeds, x) -> (x,)
    axis.plot(x, mean, color=colour, label=name)
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        # A logarithmic axis has no place for a lower edge below zero.
        low = np.maximum(mean - std, 1e-2 * mean) if axis.get_yscale() == "log" else mean - std
        axis.fill_between(x, low, mean + std, color=colour, alpha=0.2, linewidth=0)


def _error_bars(axis: Axes, values: np.ndarray, colour: str, name: str) -> None:
    std = values.std(axis=0, ddof=1) if len(values) > 1 else None  # (seeds, layers) -> (layers,)
    x = np.arange(values.shape[1])
    axis.errorbar(x, values.mean(axis=0), std, color=colour, label=name, marker="o", capsize=3)
