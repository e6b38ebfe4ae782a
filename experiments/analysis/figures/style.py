"""What all figures share: page and ink, panels, legends, axes of depth and logarithmic axes."""

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from experiments.analysis.glyphs import drawable

# Each means one thing only, so that a page can exchange it for its own (analysis/page).
INK, MUTED, GRID, PAPER = "#1b1b1f", "#6b6b73", "#dcdce1", "#fefefe"
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
    "lines.markersize": 4.5,
}
DEPTH = "layer, by depth (block.norm)"
FEW = 4  # Methods; of more, a figure shows lines alone: bands and single seeds would hide them.
LEGEND = 8  # Points, of the names in legends.
LETTER = 0.56  # Mean width of a letter as a share of its size: DejaVu Sans, rather too wide.
KEY = 5  # What the mark of a legend takes besides the name, in letters.


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
    first: Sequence[str] = (),
    last: Sequence[str] = (),
    where: str = "upper",
) -> None:
    """Write one legend of all panels outside of them, each name once.

    As many names stand side by side as the figure has room for; a longer name is broken.

    Args:
        figure: Of the panels.
        axes: The panels.
        first: Names that come before all others, in this order: by result.
        last: Names that come after all others, in this order.
        where: Above the panels, "upper", or, if the figure has a title there, "lower".
    """
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, handle)
    if not entries:
        return
    places = {name: i - len(first) for i, name in enumerate(first)}
    places |= {name: i + 1 for i, name in enumerate(last)}
    order = sorted(entries, key=lambda name: places.get(name, 0))
    columns, room = _legend_columns(order, figure.bbox.width / figure.dpi)
    at: Any = f"outside {where} left"
    figure.legend(
        [entries[name] for name in order],
        ["\n".join(textwrap.wrap(name, room)) for name in order],
        loc=at,
        ncols=columns,
        fontsize=LEGEND,
        columnspacing=1.2,
    )


def legend_height(names: Sequence[str], width: float) -> float:
    """Return how high a legend of these names becomes, inches: what a figure needs besides.

    Args:
        names: Its entries.
        width: Of the figure, inches.
    """
    columns, room = _legend_columns(names, width)
    lines = max((len(textwrap.wrap(name, room)) for name in names), default=0)
    return math.ceil(len(names) / columns) * lines * 1.5 * LEGEND / 72 + 0.1


def _legend_columns(names: Sequence[str], width: float) -> tuple[int, int]:
    """Return how many names stand side by side, and how many letters fit into a line of one."""
    letters = int(72 * width / (LETTER * LEGEND))
    longest = max(map(len, names), default=1)
    return max(1, min(5, letters // (longest + KEY))), max(letters - KEY, 8)


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


def cut(text: str, most: int) -> str:
    """Return a text of at most so many letters, to draw: what is cut is in its middle.

    Example:
        >>> cut("encoder/layer_11/attention/norm", 16)
        'encoder…ion/norm'
    """
    if len(text) > most:
        half = (most - 1) // 2
        text = f"{text[: most - 1 - half - 1]}…{text[-half - 1 :]}"
    return drawable(text)


def depth_ticks(axis: Axes, layers: Sequence[str], share: float = 1.0) -> None:
    """Name the layers at 0, 1, ... on the x axis; dozens would print over one another.

    Args:
        axis: The axes.
        layers: Names, by depth.
        share: Of the figure's width that the axes have.
    """
    names = [cut(short(layer), 14) for layer in layers]
    figure: Any = axis.get_figure()
    letters = 72 * 0.8 * share * figure.bbox.width / figure.dpi / (LETTER * 9)
    most = max(1, min(12, int(letters / (max(map(len, names), default=1) + 2))))
    shown = range(0, len(layers), max(1, -(-len(layers) // most)))
    axis.set_xticks(list(shown), [names[i] for i in shown])
    if layers:
        axis.set_xlim(-0.6, len(layers) - 0.4)


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
    axis.yaxis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // MOST_TICKS)]))
    axis.yaxis.set_minor_locator(NullLocator())
    # Not as powers of ten in mathematical type, which takes seconds for a page of panels.
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


MOST_TICKS = 10  # Of a logarithmic axis: many decades in a low panel would print over one another.
# From coarse to fine.
_TICKS: tuple[tuple[float, ...], ...] = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
)
