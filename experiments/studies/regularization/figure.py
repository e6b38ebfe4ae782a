"""The figure: accuracy, folded weights, implied weight decay, and the grid."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.figures.looks import COLOURS
from experiments.analysis.figures.style import new_figure, plain_log, styled
from experiments.studies.regularization.summary import Row, rows_with, summarize

NAMES = {
    "bn": "BN, gamma fixed",
    "bn, trained scale": "BN, gamma trained",
    "tuned": "no norm, best weight decay",
    "no decay": "no norm, no weight decay",
}
COLOUR = dict(zip(NAMES, (*COLOURS[:3], "0.6"), strict=True))


def regularization_figure(rows: Sequence[Row], title: str) -> Figure:
    """Return the figure of four panels; bars are one sample standard deviation over seeds.

    Args:
        rows: All measurements, of ``summary.brief``.
        title: Says what was trained, on what data.
    """
    summary = summarize(rows)
    with styled():
        figure = new_figure(11, 8)
        axes = figure.subplots(2, 2)
        noises = np.array([entry["noise"] for entry in summary])
        for name in NAMES:
            if name in summary[0]["accuracy"]:
                values = [100 * np.array(entry["accuracy"][name]) for entry in summary]
                _bars(axes[0, 0], noises, values, name)
                _bars(axes[0, 1], noises, [entry["norm"][name] for entry in summary], name)
            if name in summary[0]["weight_decay"]:
                values = [entry["weight_decay"][name] for entry in summary]
                _bars(axes[1, 0], noises, values, name)
        _reference(axes[0, 1], noises, summary)
        best = [entry["best_penalty"] for entry in summary]
        axes[1, 0].plot(noises, best, "s--", color=COLOUR["tuned"], label=NAMES["tuned"])
        _grid(axes[1, 1], rows, summary)
        x = "noise on the inputs, pixel standard deviations"
        axes[0, 0].set(title="a  Accuracy on noisy test images", xlabel=x, ylabel="accuracy, %")
        axes[0, 1].set(title="b  Folded weights", xlabel=x, ylabel="|v|, median over units")
        axes[0, 1].set_yscale("log")
        axes[1, 0].set(
            title="c  Weight decay that BN implies", xlabel=x, ylabel="coefficient of |v|²"
        )
        axes[1, 0].set_yscale("log")
        axes[1, 1].set(
            title="d  The grid, without norm; diamonds: BN, at the decay it implies",
            xlabel="weight decay",
            ylabel="validation cross-entropy, nats",
            yscale="log",
        )
        for axis in axes.flat[:3]:
            axis.legend(fontsize=8)
        axes[1, 1].set_ylim(top=2 * axes[1, 1].get_ylim()[1])  # Room for names above the lines.
        axes[1, 1].legend(fontsize=8, loc="upper left", ncols=3)
        seeds = len(summary[0]["residual"])
        spread = f"n = {seeds}, mean ± sample standard deviation" if seeds > 1 else "one seed"
        for axis in (axes[0, 1], axes[1, 0], axes[1, 1]):
            plain_log(axis)
        figure.suptitle(f"{title}\n{spread}", fontsize=10)
    return figure


def _bars(axis: Axes, x: np.ndarray, values: Sequence[Any], name: str) -> None:
    mean = [np.mean(v) for v in values]
    std = [np.std(v, ddof=1) for v in values] if len(values[0]) > 1 else None
    axis.errorbar(x, mean, std, color=COLOUR[name], label=NAMES[name], marker="o", ms=4, capsize=3)


def _reference(axis: Axes, noises: np.ndarray, summary: Sequence[dict[str, Any]]) -> None:
    """Return what isotropic inputs would give, through the first point."""
    start = np.mean(summary[0]["norm"]["bn"])
    power = summary[0]["power"]
    line = start * np.sqrt(power / (power + noises**2 - noises[0] ** 2))
    axis.plot(noises, line, ":", color="0.3", label=r"$\propto 1 / \sqrt{s^2 + \mathrm{noise}^2}$")


def _grid(axis: Axes, rows: Sequence[Row], summary: Sequence[dict[str, Any]]) -> None:
    penalties = sorted({row["penalty"] for row in rows_with(rows, network="no norm")})
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(summary)))
    for entry, colour in zip(summary, colours, strict=True):
        noise = entry["noise"]
        plain = rows_with(rows, network="no norm", noise=noise)
        losses = [
            np.mean([row["validation_cross_entropy"] for row in rows_with(plain, penalty=penalty)])
            for penalty in penalties
        ]
        axis.plot(penalties, losses, "o-", ms=3, color=colour, label=f"noise {noise:g}")
        loss = np.mean(
            [row["validation_cross_entropy"] for row in rows_with(rows, network="bn", noise=noise)]
        )
        axis.plot(np.mean(entry["weight_decay"]["bn"]), loss, "D", ms=6, color=colour)
    smallest = min((p for p in penalties if p > 0), default=1e-4)
    axis.set_xscale("symlog", linthresh=smallest)
