"""The figure: exact distances as marks, bounds as lines."""

from collections.abc import Sequence

from matplotlib import ticker
from matplotlib.figure import Figure

from experiments.analysis.figures import style
from experiments.analysis.figures.looks import COLOURS as LOOKS
from experiments.studies.bounds.study import Row, median

COLOURS = dict(zip((0.0, 0.5, 1.0), LOOKS, strict=False))
NAMES = {
    0.0: r"batch norm, $\alpha = 0$",
    0.5: r"unitized, $\alpha = 0.5$",
    1.0: r"unitized, $\alpha = 1$",
}


def bounds_figure(rows: Sequence[Row]) -> Figure:
    """Return four panels of all measurements."""
    with style.styled():
        figure = style.new_figure(9.6, 7.4)
        axes = figure.subplots(2, 2)
        _against(axes[0, 0], rows, "dimension")
        axes[0, 0].set(
            title="a  Equal means and variances, growing dimension",
            xlabel="dimension d",
            ylabel="EM distance of the outputs",
        )
        axes[0, 0].set_xscale("log", base=2)
        dimensions = sorted({r.dimension for r in rows if r.study == "dimension"})
        axes[0, 0].set_xticks(dimensions, [str(d) for d in dimensions])
        _against(axes[0, 1], rows, "noise")
        dimension = next(r.dimension for r in rows if r.study == "noise")
        axes[0, 1].set(
            title=f"b  Same samples, noisier statistics (d = {dimension})",
            xlabel=r"noise of mean and log variance, $\approx$ 1/$\sqrt{\mathrm{batch\ size}}$",
            ylabel="EM distance of the outputs",
        )
        axes[0, 1].set_xscale("log")
        _plain(axes[0, 1].xaxis)
        _alpha(axes[1, 0], rows)
        _relative(axes[1, 1], rows)
        style.legend(figure, [axes[0, 0]], where="lower")
        figure.suptitle("Marks: exact, certified.  Lines: closed-form upper bounds.", fontsize=9.5)
    return figure


def _against(axis, rows, study):
    for alpha, colour in COLOURS.items():
        at, bound = median(rows, "bound", study=study, alpha=alpha)
        _, exact = median(rows, "distance", study=study, alpha=alpha)
        axis.plot(at, bound, color=colour, lw=1.4, label=NAMES[alpha])
        axis.plot(at, exact, "o", color=colour, ms=4)
    axis.set_yscale("log")
    _plain(axis.yaxis, subs=(1, 2, 5) if study == "dimension" else (1,))
    axis.annotate("2", (at[-1], 2), (4, 0), textcoords="offset points", va="center", color=colour)


def _alpha(axis, rows):
    at, bound = median(rows, "bound", study="alpha")
    _, exact = median(rows, "distance", study="alpha")
    # At alpha = 0 the rows hold U1; the line is the unitized bound, so it starts after it.
    axis.plot(at[1:], bound[1:], color=style.MUTED, lw=1.4)
    axis.scatter(at, exact, c=[COLOURS.get(a, style.MUTED) for a in at], s=20, zorder=3)
    noise = next(r.noise for r in rows if r.study == "alpha")
    axis.set(
        title=f"c  From batch norm to unitized (noise = {noise:g})",
        xlabel=r"$\alpha$",
        ylabel="EM distance of the outputs",
        ylim=(0, None),
    )


def _relative(axis, rows):
    for (alpha, colour), size in zip(COLOURS.items(), (9, 6, 3.5), strict=True):
        at, value = median(rows, "relative", study="noise", alpha=alpha)
        axis.plot(at, value, "o-", color=colour, ms=size, lw=1.2)
    axis.set_xscale("log")
    axis.set_yscale("log")
    _plain(axis.xaxis)
    _plain(axis.yaxis)
    axis.set(
        title="d  As b, in units of the output's own spread",
        xlabel=r"noise of mean and log variance, $\approx$ 1/$\sqrt{\mathrm{batch\ size}}$",
        ylabel=r"EM distance / mean $|y - \overline{y}|$",
    )


def _plain(axis, subs=(1,)):
    """Write numbers instead of powers, at the given multiples of 1, 10, 100."""
    axis.set_major_locator(ticker.LogLocator(base=10, subs=subs))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())
