"""The tables of a comparison, from its record alone: the pages' come from a file."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.analysis.compare.pairs import pairs_table
from experiments.analysis.compare.record import number
from experiments.analysis.names import label
from experiments.common.statistics import Paired, holm, largest, mean_std, paired, smallest
from experiments.common.table import Column, Table, interval, mean_std_column

Arm = Mapping[str, Any]


def tables(record: Mapping[str, Any]) -> dict[str, Table]:
    """Return all tables that a record has the numbers for, by their keys.

    Args:
        record: As ``make_record`` gives it, maybe through JSON.
    """
    arms = record["arms"]
    found = [results_table(record), cost_table(record)]
    if len(arms) > 2:  # Of two, the results have the only pair.
        found.insert(1, pairs_table(record))
    if len(arms) > 1 and any(arm["shift"] for arm in arms):
        found += [shift_table(record), layers_table(record)]
    if any(arm["distances"] for arm in arms):
        found += [distances_table(record), bounds_table(record), epochs_table(record)]
    if any(arm["alpha"] for arm in arms):
        found.append(alpha_table(record))
    return {table.key: table for table in found}


def results_table(record: Mapping[str, Any]) -> Table:
    """Test accuracy: n, mean, standard deviation, and the paired difference from the base."""
    arms, base = record["arms"], record["arms"][0]
    accuracy = {arm["name"]: _column(arm, "accuracy") for arm in arms}
    differences = {
        arm["name"]: paired(accuracy[arm["name"]], accuracy[base["name"]]) for arm in arms[1:]
    }
    adjusted = dict(zip(differences, holm([d.p for d in differences.values()]), strict=True))
    nothing = Paired(0, math.nan, math.nan, math.nan, math.nan)
    rows = []
    for arm in arms:
        name, difference = arm["name"], differences.get(arm["name"], nothing)
        rows.append(
            (
                *(label(name), len(accuracy[name]), mean_std(accuracy[name]), difference.mean),
                *((difference.low, difference.high), difference.p, adjusted.get(name)),
                mean_std(_column(arm, "cross_entropy")),
            )
        )
    columns: tuple[Column, ...] = (
        *(Column("method"), Column("n", "{:.0f}"), mean_std_column("test accuracy, %", 2, 100)),
        Column(f"minus {label(base['name'])}", "{:+.2f}", factor=100),
        interval("95 % interval", "{:+.2f}", 100),
        *(Column("p", "{:.2g}"), Column("p (Holm)", "{:.2g}")),
        mean_std_column("cross-entropy, nats", 3),
    )
    if len(arms) < 3:  # One comparison needs no adjustment.
        columns, rows = _without(columns, rows, "p (Holm)")
    caption = (
        "last state, not the best; mean ± sample standard deviation over seeds; differences are "
        "paired by seed, with the 95 % confidence interval of their mean and the two-sided p-value "
        "of Student's paired t-test"
    )
    if len(arms) > 2:
        caption += f"; p (Holm): adjusted for {len(arms) - 1} comparisons"
    caption += "".join(
        f"; {label(arm['name'])}, seed {run['seed']}: logits NaN for {run['not_finite']} of "
        f"{run['count']} images, which count as wrong"
        for arm in arms
        for run in arm["runs"]
        if run.get("not_finite")
    )
    return Table("results", f"Test accuracy on {record['data']}", caption, columns, rows)


def cost_table(record: Mapping[str, Any]) -> Table:
    """Epochs to the target accuracy, time per step, and what the probe takes."""
    arms, base = record["arms"], record["arms"][0]
    outside = record["format"] == 1
    reached = {arm["name"]: _reached(arm) for arm in arms}
    rows = []
    for arm in arms:
        name = arm["name"]
        epochs, theirs = reached[name], reached[base["name"]]
        n = len(arm["runs"])
        # Where some never get there, a mean over the others is no fair comparison.
        both = len(epochs) == len(theirs) == n and arm is not base
        difference = paired(epochs, theirs) if both else None
        ratios = [number(r["time_ratio"]) for r in arm["runs"] if r["time_ratio"] is not None]
        rows.append(
            (
                *(label(name), mean_std(epochs), f"{len(epochs)} of {n}"),
                difference.mean if difference else None,
                (difference.low, difference.high) if difference else None,
                mean_std(_column(arm, "ms_per_step")),
                mean_std(ratios) if ratios and arm is not base else None,
                mean_std([number(r["probe_seconds"]) / number(r["seconds"]) for r in arm["runs"]]),
            )
        )
    columns: tuple[Column, ...] = (
        *(Column("method"), mean_std_column(f"epochs to {100 * record['target']:g} %", 1)),
        *(Column("reached it"), Column(f"epochs, minus {label(base['name'])}", "{:+.1f}")),
        interval("95 % interval", "{:+.1f}"),
        mean_std_column("time per step, ms", 2),
        mean_std_column(f"time / {label(base['name'])}", 3),
        mean_std_column("probing, % of the updates", 1, 100),
    )
    caption = (
        "epochs to the first evaluation that good, over the seeds that reached it; ratio of times: "
        "median over neighbouring stretches, for methods trained in turns in one run; time of the "
        f"probe, {'which the time per step leaves out' if outside else 'by itself'}, as a share of "
        f"that of the updates{'' if outside else ', which includes it'}"
    )
    if not any(run["probe_seconds"] for arm in arms for run in arm["runs"]):
        columns, rows = _without(columns, rows, "probing, % of the updates")
    return Table("cost", "Epochs to a target, time per step, probing", caption, columns, rows)


def shift_table(record: Mapping[str, Any]) -> Table:
    """In how many layers each method moved less than the base, one row per method."""
    rows = []
    for arm in record["arms"][1:]:
        cells: list[Any] = [label(arm["name"])]
        for quantity in ("absolute", "relative"):
            layers = [layer for layer in arm["shift"] if layer["quantity"] == quantity]
            if not layers:
                cells += [None, None, None]
                continue
            signs = [_sign(layer["seed_ratios"]) for layer in layers]
            ratios = [number(layer["ratio"]) for layer in layers]
            cells += [signs.count(-1), signs.count(1), _ends(ratios)]
        found = arm["certificates"]
        cells += [sum(c["measured"] for c in found), sum(c["open"] for c in found)]
        cells.append(largest(number(c["largest_gap"]) for c in found) if found else None)
        rows.append(tuple(cells))
    columns = [Column("method")]
    for quantity in ("absolute", "relative"):
        columns += [Column(f"{quantity}: {word}", "{:.0f}") for word in ("less", "more")]
        columns.append(interval(f"{quantity}: ratio", "{:.2f}"))
    columns += [Column("distances", "{:.0f}"), Column("open", "{:.0f}")]
    columns.append(Column("largest gap", "{:.0e}"))
    caption = (
        f"layers that moved less, and more, than with {label(record['arms'][0]['name'])}, in the "
        "median of every seed, and the range of the layers' median ratios; certificates: "
        "distances, how many stayed open, and the largest relative gap"
    )
    return Table("shift", "Which layers moved less in an update", caption, tuple(columns), rows)


def layers_table(record: Mapping[str, Any]) -> Table:
    """Return every layer's shift against that of the base."""
    rows = [
        (
            *(label(arm["name"]), layer["quantity"], layer["layer"], layer["d"], layer["pairs"]),
            *(layer["median_base"], layer["median"], number(layer["ratio"])),
            tuple(number(q) for q in layer["quartiles"]),
            _ends([number(ratio) for ratio in layer["seed_ratios"]]),
            *(layer["certified_less"], layer["certified_more"]),
            {-1: label(arm["name"]), 1: label(record["arms"][0]["name"]), 0: "neither"}[
                _sign(layer["seed_ratios"])
            ],
        )
        for arm in record["arms"][1:]
        for layer in arm["shift"]
    ]
    base = label(record["arms"][0]["name"])
    columns = (
        *(Column("method"), Column("quantity"), Column("layer"), Column("d", "{:.0f}")),
        *(Column("pairs", "{:.0f}"), Column(f"shift, {base}", "{:.3g}"), Column("shift", "{:.3g}")),
        *(Column("ratio", "{:.2f}"), interval("quartiles", "{:.2f}")),
        interval("over seeds", "{:.2f}"),
        *(Column("certified less, %", "{:.0f}", factor=100),),
        *(Column("certified more, %", "{:.0f}", factor=100), Column("moved less")),
    )
    caption = (
        "Earth Mover distance between outputs before and after an update; medians over updates and "
        "seeds; the ratio is paired, update by update; relative: in spreads of the layer; "
        "certified: share of the updates at which the certificates do not overlap"
    )
    return Table("layers", "Shift of every layer", caption, columns, rows)


def distances_table(record: Mapping[str, Any]) -> Table:
    """Return every layer's distance within its certificate, absolute and relative."""
    rows = [
        (
            *(label(arm["name"]), layer["layer"], layer["d"]),
            *(
                cell
                for quantity in ("absolute", "relative")
                for cell in (
                    layer[quantity]["value"],
                    (layer[quantity]["lower"], layer[quantity]["upper"]),
                )
            ),
        )
        for arm in record["arms"]
        for layer in arm["distances"]
    ]
    columns = (
        *(Column("method"), Column("layer"), Column("d", "{:.0f}"), Column("distance", "{:.4g}")),
        *(interval("certificate", "{:.6g}"), Column("relative", "{:.4g}")),
        interval("certificate, relative", "{:.6g}"),
    )
    caption = "medians over updates and seeds; relative: in spreads of the layer"
    title = "Shift of every layer, within its certificate"
    return Table("distances", title, caption, columns, rows)


def alpha_table(record: Mapping[str, Any]) -> Table:
    """Mean alpha of each layer after training, by depth."""
    arms = [arm for arm in record["arms"] if arm["alpha"]]
    layers = list(dict.fromkeys(layer for arm in arms for layer in arm["alpha"]))
    rows = [
        (
            layer,
            *(
                mean_std([*map(number, arm["alpha"][layer])]) if layer in arm["alpha"] else None
                for arm in arms
            ),
        )
        for layer in layers
    ]
    columns = (Column("layer"), *(mean_std_column(label(arm["name"]), 3) for arm in arms))
    caption = "mean over channels after training; mean ± sample standard deviation over seeds"
    return Table("alpha", "Alpha by depth", caption, columns, rows)


def bounds_table(record: Mapping[str, Any]) -> Table:
    """Return every bound as a multiple of the distance, layer by layer."""
    rows, names = [], _bounds(record)
    for arm in record["arms"]:
        loose = arm["looseness"]
        for i, layer in enumerate(loose["layers"]):
            cells = [loose["bounds"].get(name, {}).get("by_layer", {}) for name in names]
            rows.append((label(arm["name"]), layer, *(c[i] if c else None for c in cells)))
    columns = (Column("method"), Column("layer"), *_bound_columns(names))
    return Table("bounds", "Bounds over distance, by layer", BOUNDS + "updates", columns, rows)


def epochs_table(record: Mapping[str, Any]) -> Table:
    """Return every bound as a multiple of the distance, epoch by epoch."""
    rows, names = [], _bounds(record)
    for arm in record["arms"]:
        loose = arm["looseness"]
        for i, epoch in enumerate(loose["epochs"]):
            cells = [loose["bounds"].get(name, {}).get("by_epoch", {}) for name in names]
            rows.append((label(arm["name"]), epoch, *(c[i] if c else None for c in cells)))
    columns = (Column("method"), Column("epoch", "{:.0f}"), *_bound_columns(names))
    caption = f"{BOUNDS}layers"
    return Table("epochs", "Bounds over distance, by epoch", caption, columns, rows)


BOUNDS = "bound / measured distance: lower ones are at most 1; medians over seeds and "


def _bounds(record: Mapping[str, Any]) -> list[str]:
    names = [name for arm in record["arms"] for name in arm["looseness"]["bounds"]]
    return list(dict.fromkeys(names))


def _bound_columns(names: Sequence[str]) -> list[Column]:
    return [Column(name.replace("_", " "), "{:.3g}") for name in names]


def _column(arm: Arm, name: str) -> list[float]:
    return [number(run[name]) for run in arm["runs"]]


def _reached(arm: Arm) -> list[float]:
    return [number(e) for run in arm["runs"] if (e := run["epochs_to_target"]) is not None]


def _sign(ratios: Sequence[Any]) -> int:
    """-1 if all seeds moved less, 1 if all moved more, 0 if they disagree."""
    signs = set(np.sign(np.array([number(ratio) for ratio in ratios]) - 1))
    return int(signs.pop()) if len(signs) == 1 and not np.isnan(list(signs)).any() else 0


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return smallest(values), largest(values)


def _without(
    columns: tuple[Column, ...], rows: list[tuple[Any, ...]], name: str
) -> tuple[tuple[Column, ...], list[tuple[Any, ...]]]:
    kept = [i for i, column in enumerate(columns) if column.name != name]
    return tuple(columns[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]
