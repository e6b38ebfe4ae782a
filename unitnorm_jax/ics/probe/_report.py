"""What a probe returns: one entry per layer, as objects, rows, scalars or text."""

import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import jax
import numpy as np

from unitnorm_jax.ics.distances._cascade import EMDistance
from unitnorm_jax.ics.probe._layer_info import LayerInfo
from unitnorm_jax.ics.probe._measure import Measure
from unitnorm_jax.ics.probe._others import COLUMNS
from unitnorm_jax.ics.probe._stacked import Stacked


class LayerICS(NamedTuple):
    """The shift of one output of one call of one layer; units of the layer's output."""

    layer: str
    """Path of the module in the model, joined with "/"; with the place along the axes that
    ``nn.scan`` and ``nn.vmap`` stack: "block/norm[3]"."""
    call: int
    """0 for the layer's first call, 1 for its second, ..."""
    output: str
    """Which array of the output: "" for all of it, "[0]" for the first of a tuple."""
    kind: str
    """Name of the module's class."""
    mode: str
    """"train" or "eval", as the model was called."""
    statistics: str
    """"batch" or "running", whichever the layer normalized with; "none" if it keeps none."""
    n: int
    """Points of the distance: samples, or steps of samples; see `points`."""
    d: int
    """Dimension: numbers per sample, along all other axes of the output."""
    distance: EMDistance
    """W1 with its certificate."""
    relative: EMDistance
    """The same in units of the spread."""
    spread: Any
    """``E |x - E x|`` before the update."""
    upper: dict[str, Any]
    """Closed-form upper bounds by name."""
    lower: dict[str, Any]
    """Closed-form lower bounds by name; of moments, projection and coordinates those of the 1,024
    coordinates in the middle, where a layer has more."""
    pairing_optimal: Any
    """Whether each sample paired with itself is proven to be an optimal coupling."""
    finite_before: Any
    """Whether the output before the update is finite."""
    finite_after: Any
    """Whether the output after the update is finite."""
    others: dict[str, Any] | None = None
    """Other measures by the names of their columns."""
    points: str = "samples"
    """What a point is: "samples", each with all of its numbers, or "steps" of samples."""
    note: str = ""
    """Which axis was taken, where it is ambiguous; and steps that a mask could not take out."""
    invalid: str = ""
    """Why the layer could not be measured, whatever its numbers; part of `reason`."""

    @property
    def reason(self) -> str:
        """Why numbers are NaN, or the relative ones have no unit; "" where they are sound."""
        return _reason(self.invalid, self.finite_before, self.finite_after, self.spread)

    def row(self) -> dict[str, Any]:
        """Return all of it as one flat dictionary of Python numbers and strings.

        Returns:
            The fields; of the distance ``value``, ``certified_lower``, ``certified_upper`` and
            ``exact``; the relative distance as ``relative``, ``relative_lower`` and
            ``relative_upper``; the bounds as ``upper_...`` and ``lower_...``; and ``reason``.
        """
        host = jax.device_get(self)
        numbers = {name: value.item() for name, value in _numbers(host).items()}
        texts = {name: getattr(host, name) for name in (*self._fields[:8], "points", "note")}
        return {**texts, **numbers, "reason": host.reason}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ICSReport:
    """The shift of every probed layer. Arrays stay on the device until `layers` or `rows` asks.

    Attributes:
        infos: Which layers, in the order of their calls.
        stacked: What was measured of them, in two arrays, however many layers there are.
        others: Other measures by the names of their columns, (layers,).
    """

    infos: tuple[LayerInfo, ...]
    stacked: Stacked
    others: dict[str, Any]

    @property
    def measures(self) -> Measure:
        """What was measured: `Measure` whose arrays have one entry per layer."""
        return self.stacked.measure(self.others or None)

    @property
    def layers(self) -> tuple[LayerICS, ...]:
        """One entry per layer, its numbers numpy scalars; waits for the device.

        Inside a traced function they are traced arrays.
        """
        traced = isinstance(self.stacked.flags, jax.core.Tracer)
        values = (self if traced else self._on_host()).measures
        return tuple(
            LayerICS(**vars(info), **jax.tree.map(operator.itemgetter(i), values)._asdict())
            for i, info in enumerate(self.infos)
        )

    def rows(self, **more: Any) -> list[dict[str, Any]]:
        """Return one flat dictionary per layer, see `LayerICS.row`; waits for the device.

        Args:
            **more: Put first into every row, for example ``step=100``; numbers from numpy or JAX as
                Python's.
        """
        more = {name: value.item() if _is_number(value) else value for name, value in more.items()}
        host = self._on_host().measures
        # By columns: a row at a time took five times longer, `jax.device_get` ten times.
        columns = {name: values.tolist() for name, values in _numbers(host).items()}
        invalid = [info.invalid for info in self.infos]
        reasons = map(_reason, invalid, host.finite_before, host.finite_after, host.spread)
        return [
            {**more, **info.row(), **dict(zip(columns, numbers, strict=True)), "reason": reason}
            for info, reason, *numbers in zip(self.infos, reasons, *columns.values(), strict=True)
        ]

    def _on_host(self) -> "ICSReport":
        with jax.transfer_guard_device_to_host("allow"):
            return jax.tree.map(np.asarray, self)

    def scalars(self, prefix: str = "ics") -> dict[str, float]:
        """Return the finite numbers to draw over training, by TensorBoard name.

        Args:
            prefix: Of the names.

        Returns:
            ``{prefix}/{layer}/{value, relative, certified_lower, certified_upper}``.
        """
        return scalars(self.rows(), prefix)

    def __str__(self) -> str:
        """Return a table of the main columns."""
        return table(self.rows())


def _is_number(value: Any) -> bool:
    return isinstance(value, np.generic | np.ndarray | jax.Array) and value.ndim == 0


def _numbers(measured: Measure | LayerICS) -> dict[str, Any]:
    distance, relative = measured.distance, measured.relative
    return {
        "value": distance.value,
        "certified_lower": distance.lower,
        "certified_upper": distance.upper,
        "relative": relative.value,
        "relative_lower": relative.lower,
        "relative_upper": relative.upper,
        "exact": distance.exact,
        "spread": measured.spread,
        **{f"upper_{name}": bound for name, bound in measured.upper.items()},
        **{f"lower_{name}": bound for name, bound in measured.lower.items()},
        "pairing_optimal": measured.pairing_optimal,
        **(measured.others or {}),
    }


def _reason(invalid: str, finite_before: Any, finite_after: Any, spread: Any) -> str:
    if invalid:
        return invalid
    sides = {"before": finite_before, "after": finite_after}
    bad = [side for side, finite in sides.items() if not finite]
    if bad:
        return f"NaN or inf in the output {' and '.join(bad)} the update"
    if spread == 0:
        return (
            "The output before the update is the same for all samples, or differs by subnormal "
            "numbers: no unit for `relative`"
        )
    return ""


def row_name(row: Mapping[str, Any]) -> str:
    """Layer, call and output in one name: "block_0/norm_0", "shared#1[0]"."""
    call = f"#{row['call']}" if row["call"] else ""
    return f"{row['layer'] or '(model)'}{call}{row['output']}"


def scalars(rows: Sequence[Mapping[str, Any]], prefix: str = "ics") -> dict[str, float]:
    """TensorBoard names and values of the rows of one step; see `ICSReport.scalars`."""
    names = ("value", "relative", "certified_lower", "certified_upper")
    return {
        f"{prefix}/{row_name(row)}/{name}": row[name]
        for row in rows
        for name in names
        if math.isfinite(row[name])
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as aligned text: the distance within its certificate and within the bounds.

    ``lower`` and ``upper`` are the best of the closed-form bounds (`best_bounds`). The other
    measures follow, without their quantiles and errors.

    Args:
        rows: From a report or a record.

    Returns:
        A header and one line per row.

    Example:
        >>> print(table([]))
        layer  stats  n  d  distance  gap  relative  lower  upper  pairing
    """
    others = [name for name in chain(*COLUMNS.values()) if any(name in row for row in rows)]
    lines = [[*_HEADER, *others, "pairing"]]
    for row in rows:
        lower, upper = best_bounds(row)
        gap = row["certified_upper"] - row["certified_lower"]
        line = [
            row_name(row),
            row["statistics"],
            str(row["n"]) + (" steps" if row.get("points") == "steps" else ""),
            str(row["d"]),
            *(f"{v:.4g}" for v in (row["value"], gap, row["relative"], lower, upper)),
            *(f"{row[name]:.4g}" if name in row else "" for name in others),
            row["reason"] or ("optimal" if row["pairing_optimal"] else "not proven"),
            *([f"({row['note']})"] if row.get("note") else []),
        ]
        lines.append(line)
    if any("step" in row for row in rows):
        steps = ["step", *(str(row.get("step", "")) for row in rows)]
        lines = [[step, *line] for step, line in zip(steps, lines, strict=True)]
    width = max(map(len, lines))
    lines = [[*line, *[""] * (width - len(line))] for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def best_bounds(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return a row's largest closed-form lower bound and smallest upper one (not the pairing's).

    The pairing's cost (U3) is a coupling's, not a statement about moments, and after a small
    update it IS the distance; it would hide the others.
    """
    lower = [v for k, v in row.items() if k.startswith("lower_") and v == v]
    upper = [v for k, v in row.items() if k.startswith("upper_") and k != "upper_pairing"]
    return max(lower, default=math.nan), min((v for v in upper if v == v), default=math.nan)


_HEADER = ["layer", "stats", "n", "d", "distance", "gap", "relative", "lower", "upper"]
