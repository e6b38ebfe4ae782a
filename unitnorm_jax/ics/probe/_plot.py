"""The figure of a training run's shift."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unitnorm_jax.ics.probe._record import ICSRecord
from unitnorm_jax.ics.probe._report import best_bounds, row_name

_INK, _BAND, _EDGE, _CERTIFICATE, _BAD = "#1f4e8c", "#e9eff6", "#9fb6d0", "#e0a24a", "#c2452d"
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": "line",
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


def plot(
    record: ICSRecord[Any] | Sequence[Mapping[str, Any]], *, relative: bool = True, columns: int = 4
) -> Any:
    """Draw the shift of every layer over training, one panel per layer.

    The line is the distance, the shade right around it its certificate (usually thinner than the
    line), the wide band the closed-form bounds, from the best lower to the best upper one but
    the pairing's. Hollow marks: the pairing is not proven optimal. Crosses on the axis: it
    could not be measured.

    Args:
        record: An `ICSRecord`, or rows from it or from `read_rows`.
        relative: In units of the layer's spread, all panels on one scale; else in those of the
            layer's output, each panel on its own.
        columns: Panels side by side.

    Returns:
        A ``matplotlib.figure.Figure``; ``figure.savefig(path)`` saves it.

    Raises:
        ValueError: If there are no rows, or `columns` is not positive.
        ImportError: If matplotlib is not installed.
    """
    rows = record.rows() if isinstance(record, ICSRecord) else list(record)
    if not rows:
        raise ValueError("`record` has no rows; train until the first multiple of `every`.")
    if columns < 1:
        raise ValueError(f"`columns` (={columns}) must be at least 1.")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("`plot` needs matplotlib; install it, or unitnorm-jax[plot].") from error

    panels: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        panels.setdefault(row_name(row), []).append(row)
    columns = min(columns, len(panels))
    lines = math.ceil(len(panels) / columns)
    with rc_context(_STYLE):
        figure = Figure(figsize=(2.6 * columns + 0.6, 2.1 * lines + 0.9), layout="constrained")
        grid = figure.subplots(lines, columns, sharex=True, sharey=relative, squeeze=False)
        axes = list(grid.flat)
        for axis, (name, layer) in zip(axes, panels.items(), strict=False):
            _panel(axis, layer, relative)
            axis.set_title(f"{name}  (d = {layer[0]['d']})")
        for axis in axes[len(panels) :]:
            axis.remove()
        for axis in axes[max(len(panels) - columns, 0) : len(panels)]:
            axis.tick_params(labelbottom=True)
        _legend(figure, axes[: len(panels)], columns + 1)
        unit = "EM distance / spread" if relative else "EM distance"
        figure.supylabel(unit, fontsize=9)
        lag, first = rows[0].get("lag"), rows[0]
        most = max(row["n"] for row in rows)
        updates = "" if lag is None else f", shift over {lag} update{'s' if lag > 1 else ''}"
        figure.supxlabel(f"update ({first['mode']} mode, n = {most}{updates})", fontsize=9)
    return figure


def _panel(axis: Any, rows: Sequence[Mapping[str, Any]], relative: bool) -> None:
    steps = [row.get("step", i) for i, row in enumerate(rows)]
    units = [row["spread"] if relative else 1.0 for row in rows]
    name = "relative" if relative else "value"
    ends = (
        ("relative_lower", "relative_upper") if relative else ("certified_lower", "certified_upper")
    )
    value = [_positive(row[name]) for row in rows]
    lower, upper = ([_positive(row[end]) for row in rows] for end in ends)
    bounds = [[_over(b, u) for b in best_bounds(r)] for r, u in zip(rows, units, strict=True)]
    axis.plot(steps, value, color=_INK, lw=1.3, label="distance", zorder=3)
    axis.fill_between(
        steps, lower, upper, color=_CERTIFICATE, lw=0, label="its certificate", zorder=2.5
    )
    below, above = zip(*bounds, strict=True)
    axis.fill_between(
        steps, below, above, fc=_BAND, ec=_EDGE, lw=0.8, label="closed-form bounds", zorder=0.5
    )
    unproven = [i for i, row in enumerate(rows) if not row["pairing_optimal"] and not row["reason"]]
    marks = {
        "_": ([i for i in _alone(value) if i not in unproven], _INK),
        "pairing not proven optimal": (unproven, "white"),
    }
    for label, (at, face) in marks.items():
        if at:
            x, y = [steps[i] for i in at], [value[i] for i in at]
            axis.plot(x, y, "o", ms=3.5, mfc=face, mec=_INK, zorder=4, label=label)
    # A band of one point has no width either.
    for low, high, color, order in ((lower, upper, _CERTIFICATE, 2.5), (below, above, _EDGE, 0.5)):
        at = _alone([a + b for a, b in zip(low, high, strict=True)])
        if at:
            x, low, high = ([z[i] for i in at] for z in (steps, low, high))
            axis.vlines(x, low, high, color=color, lw=1.3, zorder=order)
    bad = [
        s for s, row in zip(steps, rows, strict=True) if row["reason"] and math.isnan(row["value"])
    ]
    if bad:
        axis.plot(
            bad,
            [0.02] * len(bad),
            "x",
            color=_BAD,
            ms=5,
            transform=axis.get_xaxis_transform(),
            clip_on=False,
            label="not measured",
        )
    if any(not math.isnan(v) for v in value):
        axis.set_yscale("log")
        axis.minorticks_off()


def _legend(figure: Any, axes: Sequence[Any], columns: int) -> None:
    entries: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        entries.values(), entries.keys(), loc="outside upper left", ncols=columns, fontsize=8
    )


def _alone(values: Sequence[float]) -> list[int]:
    """Return numbers whose neighbours are none: a line through them is not drawn."""
    shown = [False, *(not math.isnan(v) for v in values), False]
    return [i for i in range(len(values)) if shown[i : i + 3] == [False, True, False]]


def _positive(value: float) -> float:
    """For the logarithmic axis: what it cannot show is left out."""
    return value if math.isfinite(value) and value > 0 else math.nan


def _over(bound: float, unit: float) -> float:
    return _positive(bound / unit) if unit > 0 else math.nan
