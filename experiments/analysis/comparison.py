"""Which of two normalizations moved less, layer by layer: from the rows of their probes.

Measurements are paired: the same layer (by its path in the network), seed and update, on the same
images. Distances of different layers are never compared with one another.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.common.statistics import largest, median, quantile
from unitnorm_jax.ics import best_bounds, row_name

Rows = Sequence[Mapping[str, Any]]
# What is compared: names in a row of the distance and the ends of its certificate.
QUANTITIES = {
    "absolute": ("value", "certified_lower", "certified_upper"),
    "relative": ("relative", "relative_lower", "relative_upper"),
}


# What a pair must have in common: size of the output, number of images, mode, updates between.
SAME = ("d", "n", "mode", "lag")


class LayerComparison(NamedTuple):
    """How much one layer moved under two norms.

    Attributes:
        layer: Path of the layer; call and output, if there are several, behind it.
        d: Numbers per sample of its output.
        pairs: Measurements that both norms have, and that are finite.
        median_base: Median distance of the base over these.
        median: Median distance of the norm over these.
        ratio: Median, over the pairs, of norm / base; NaN if the base never moved.
        quartiles: Lower and upper quartile of the ratios.
        seed_ratios: Median ratio of each seed alone.
        certified_less: Share of the pairs where the norm is certified to have moved less: the upper
            end of its certificate is below the lower end of the base's.
        certified_more: The share where it is certified to have moved more.
    """

    layer: str
    d: int
    pairs: int
    median_base: float
    median: float
    ratio: float
    quartiles: tuple[float, float]
    seed_ratios: tuple[float, ...]
    certified_less: float
    certified_more: float

    def less(self, norm: str, base: str) -> str | None:
        """Return which of the two moved less; None if seeds, by their medians, disagree."""
        if self.seed_ratios and all(ratio < 1 for ratio in self.seed_ratios):
            return norm
        if self.seed_ratios and all(ratio > 1 for ratio in self.seed_ratios):
            return base
        return None


class Certificates(NamedTuple):
    """What became of the certificates of one layer (or of all layers) of one norm.

    Attributes:
        layer: As in ``LayerComparison``.
        measured: Measurements whose numbers are finite.
        open: Those of them whose certificate did not close to the tolerance of the probe.
        largest_gap: Largest (upper - lower) / upper, closed ones included; NaN if nothing was
            measured, 0 where both ends are 0.
        not_finite: Measurements left out because an output was NaN or infinite.
    """

    layer: str
    measured: int
    open: int
    largest_gap: float
    not_finite: int


class Tightness(NamedTuple):
    """How near the closed-form bounds of one layer come; medians over seeds and updates.

    Attributes:
        layer: As in ``LayerComparison``.
        d: Numbers per sample of its output.
        measured: Measurements that are finite and where the layer moved.
        distance: The distance.
        lower: Best lower bound / distance, at most 1.
        lower_name: The bound that most often is the best lower one.
        upper: Best upper bound / distance, at least 1; the pairing's cost, which nearly is the
            distance, left out.
        upper_name: The bound that most often is the best upper one.
        pairing_optimal: Share of the measurements where pairing every image with itself is proven
            optimal.
    """

    layer: str
    d: int
    measured: int
    distance: float
    lower: float
    lower_name: str
    upper: float
    upper_name: str
    pairing_optimal: float


def compare(
    norm: Mapping[int, Rows], base: Mapping[int, Rows], quantity: str
) -> list[LayerComparison]:
    """Compare two norms in every layer that both have, in the base's order.

    ``ratio = median over (seed, step) of W1_norm(layer, seed, step) / W1_base(layer, seed, step)``

    A pair that is not finite on either side, or whose outputs differ in size or were measured
    otherwise (``SAME``), is left out. A pair in which neither moved (the
    learning rate was 0) has no ratio; one in which only the base did not move has ratio inf.

    Args:
        norm: Rows of a probe by seed, as ``ICSReport.rows`` gives them with a ``step``.
        base: The same of the norm to compare with.
        quantity: "absolute": the distance; "relative": in units of the layer's own spread.

    Returns:
        One entry per layer with at least one pair.

    Raises:
        ValueError: If ``quantity`` is unknown.
    """
    if quantity not in QUANTITIES:
        raise ValueError(
            f"`quantity` (={quantity!r}) is unknown; choose from {', '.join(QUANTITIES)}."
        )
    names = QUANTITIES[quantity]
    mine, other = by_layer(norm), by_layer(base)
    compared = []
    for layer, rows in other.items():
        keys = [key for key in rows if key in mine.get(layer, {})]
        both = [(key[0], mine[layer][key], rows[key]) for key in keys]
        both = [
            (seed, a, b)
            for seed, a, b in both
            if _finite(a, names) and _finite(b, names) and _alike(a, b)
        ]
        if both:
            compared.append(_compare_layer(layer, both, names))
    return compared


def certificates(rows: Mapping[int, Rows]) -> list[Certificates]:
    """Count open certificates, layer by layer, over all seeds and steps of one norm."""
    counted = []
    for layer, measured in by_layer(rows).items():
        counted.append(_count(layer, list(measured.values())))
    return counted


def all_certificates(rows: Mapping[int, Rows]) -> Certificates:
    """Count open certificates of one norm over all layers, seeds and steps."""
    return _count("all", [row for seed in rows.values() for row in seed])


def tightness(rows: Mapping[int, Rows]) -> list[Tightness]:
    """Compare the closed-form bounds of one norm with its distances, layer by layer."""
    found = []
    for layer, measured in by_layer(rows).items():
        moved = [
            row
            for row in measured.values()
            if not row["reason"] and row["value"] > 0 and not np.isnan(best_bounds(row)).any()
        ]
        if moved:
            values = np.array([row["value"] for row in moved], np.float64)
            best = np.array([best_bounds(row) for row in moved], np.float64)
            found.append(
                Tightness(
                    layer=layer,
                    d=moved[0]["d"],
                    measured=len(moved),
                    distance=median(values),
                    lower=median(best[:, 0] / values),
                    lower_name=_most_often(moved, "lower_", best[:, 0]),
                    upper=median(best[:, 1] / values),
                    upper_name=_most_often(moved, "upper_", best[:, 1]),
                    pairing_optimal=float(np.mean([row["pairing_optimal"] for row in moved])),
                )
            )
    return found


def gap(row: Mapping[str, Any]) -> float:
    """Return the width of the certificate relative to its upper end; 1 where that is infinite.

    Example:
        >>> gap({"certified_lower": 1.5, "certified_upper": 2.0})
        0.25
    """
    upper = row["certified_upper"]
    if math.isinf(upper):
        return 1.0
    return (upper - row["certified_lower"]) / upper if upper > 0 else 0.0


def by_layer(rows: Mapping[int, Rows]) -> dict[str, dict[tuple[int, int], Mapping[str, Any]]]:
    """Return the rows of a probe by layer, and by seed and update.

    Args:
        rows: By seed.
    """
    layers: dict[str, dict[tuple[int, int], Mapping[str, Any]]] = {}
    for seed, measured in rows.items():
        for row in measured:
            layers.setdefault(row_name(row), {})[seed, row["step"]] = row
    return layers


def _compare_layer(
    layer: str, both: list[tuple[int, Any, Any]], names: tuple[str, str, str]
) -> LayerComparison:
    # Columns: distance, lower and upper end.
    seeds = np.array([seed for seed, _, _ in both])
    a = np.array([[row[name] for name in names] for _, row, _ in both], np.float64)
    b = np.array([[row[name] for name in names] for _, _, row in both], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = a[:, 0] / b[:, 0]
    return LayerComparison(
        layer=layer,
        d=both[0][2]["d"],
        pairs=len(both),
        median_base=median(b[:, 0]),
        median=median(a[:, 0]),
        ratio=median(ratios),
        quartiles=(quantile(ratios, 0.25), quantile(ratios, 0.75)),
        seed_ratios=tuple(median(ratios[seeds == seed]) for seed in np.unique(seeds)),
        certified_less=float(np.mean(a[:, 2] < b[:, 1])),
        certified_more=float(np.mean(a[:, 1] > b[:, 2])),
    )


def _most_often(rows: list[Mapping[str, Any]], prefix: str, best: np.ndarray) -> str:
    names = [
        next(name for name in row if name.startswith(prefix) and row[name] == value)
        for row, value in zip(rows, best, strict=True)
    ]
    return Counter(names).most_common(1)[0][0].removeprefix(prefix)


def _count(layer: str, rows: list[Mapping[str, Any]]) -> Certificates:
    finite = [row for row in rows if not row["reason"]]
    return Certificates(
        layer=layer,
        measured=len(finite),
        open=sum(not row["exact"] for row in finite),
        largest_gap=largest(gap(row) for row in finite),
        not_finite=len(rows) - len(finite),
    )


def _finite(row: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return all(math.isfinite(row[name]) for name in names)


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in SAME)
