"""All numbers of a comparison, as one small JSON: what tables and pages are made of."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.analysis.compare.combine import FREE, Arm, Compared, by_arm
from experiments.analysis.compare.command import train_command
from experiments.analysis.comparison import QUANTITIES, certificates, compare, tightness
from experiments.analysis.report import time_ratio
from experiments.analysis.results import RunRows
from experiments.common.statistics import median
from experiments.config.difference import flatten
from experiments.config.experiment import to_dict
from unitnorm_jax.ics import row_name

# Of the JSON; raise it when a name or a meaning changes. In 1, the time of a step is without the
# probe's, which is what it took in the run.
FORMAT = 2


def make_record(compared: Compared, command: str) -> dict[str, Any]:
    """Return the record of a comparison, ready for JSON.

    Args:
        compared: The runs.
        command: The command that made the record.

    Returns:
        ``command``, ``train`` (the command and time of every run folder), ``config`` (what all
        have in common), ``versions`` (code, libraries, hardware), ``data``, ``target``, ``notes``,
        and per arm, the base first, ``arms``: its options, ``runs`` (one entry per seed), ``alpha``
        (by layer, one number per seed), ``shift`` against the base (one entry per quantity and
        layer), ``certificates``, ``tightness`` and ``looseness`` (bounds against measurement).
        Numbers that were derived have six digits; NaN is null.
    """
    configs = [flatten(to_dict(results.config)) for results in compared.folders]
    common = {
        name: value
        for name, value in configs[0].items()
        if name not in FREE and all(config.get(name) == value for config in configs)
    }
    versions = compared.results.versions
    arms = list(by_arm(compared))
    return to_plain(
        {
            "format": FORMAT,
            "command": command,
            "train": [
                {
                    "command": train_command(results.config),
                    "time": results.versions.get("time"),
                    "seconds": _round(results.summary["seconds"]),
                }
                for results in compared.folders
            ],
            "config": common,
            "versions": {name: value for name, value in versions.items() if name != "time"},
            "data": compared.results.summary["data"],
            "seeds": list(compared.results.config.seeds),
            "target": compared.target,
            "notes": compared.notes,
            "arms": [_arm(compared, arms[0], arm, common) for arm in arms],
        }
    )


def to_json(record: Mapping[str, Any]) -> str:
    """Return the record as a file; one line per innermost group, so that changes can be read.

    Long lists of numbers or names fill lines.
    """
    return _lines(to_plain(record), "") + "\n"


_WIDTH = 200


def _lines(value: Any, indent: str) -> str:
    flat = _flat(value)
    if not isinstance(value, dict | list) or len(indent) + len(flat) <= _WIDTH:
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        entries = [f"{json.dumps(str(k))}: {_lines(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(inner + entry for entry in entries) + f"\n{indent}}}"
    if any(isinstance(entry, dict | list) for entry in value):
        return "[\n" + ",\n".join(inner + _lines(v, inner) for v in value) + f"\n{indent}]"
    lines, line = [], inner
    for entry in map(_flat, value):
        if line != inner and len(line) + len(entry) > _WIDTH:
            lines.append(line.rstrip())
            line = inner
        line += f"{entry}, "
    return "[\n" + "\n".join([*lines, line[:-2]]) + f"\n{indent}]"


def _flat(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


ArmRows = tuple[Arm, list[RunRows], list[dict[str, Any]]]


def _arm(
    compared: Compared, base: ArmRows, mine: ArmRows, common: Mapping[str, Any]
) -> dict[str, Any]:
    arm, runs, rows = mine
    shift = compared.results.ics(arm.name)
    against = compared.results.ics(base[0].name)
    return {
        "name": arm.name,
        "norm": arm.norm,
        "options": {k: v for k, v in arm.options.items() if k not in common or k[:5] == "norm."},
        "runs": [
            {
                "seed": run.seed,
                "accuracy": row["accuracy"],
                "correct": row["correct"],
                "count": row["count"],
                "not_finite": row.get("not_finite", 0),
                "cross_entropy": _round(row["cross_entropy"]),
                "updates": row["step"],
                "epochs_to_target": _epochs(row, compared.results.config.optim.epochs),
                "ms_per_step": _round(row["ms_per_step"]),
                "time_ratio": (
                    _round(time_ratio([run, other], run.norm, other.norm)) if together else None
                ),
                "seconds": _round(row["train_seconds"]),
                "probe_seconds": _round(row["probe_seconds"]),
            }
            for run, other, row in zip(runs, base[1], rows, strict=True)
            for together in [arm.folders[run.seed] == base[0].folders[run.seed]]
        ],
        "alpha": {layer: [_round(row["alpha"][layer]) for row in rows] for layer in _layers(rows)},
        "shift": [
            {"quantity": quantity, **_rounded(layer)}
            for quantity in QUANTITIES
            if arm.name != base[0].name and shift and against
            for layer in compare(shift, against, quantity)
        ],
        "distances": distances(shift),
        "certificates": [_rounded(layer) for layer in certificates(shift)],
        "tightness": [_rounded(layer) for layer in tightness(shift)],
        "looseness": looseness(shift, compared.results.config.optim.epochs, rows[0]["step"]),
    }


def distances(shift: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return medians, over seeds and update, of each layer's shift and of its certificate.

    Args:
        shift: Rows of the probe by seed.

    Returns:
        Per layer ``layer``, ``d`` and for each quantity the ``value``, ``lower`` and ``upper``
        under ``absolute`` and ``relative``.
    """
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for rows in shift.values():
        for row in rows:
            if not row["reason"]:
                layers.setdefault(row_name(row), []).append(row)
    return [
        {
            "layer": layer,
            "d": rows[0]["d"],
            **{
                quantity: {
                    part: _round(median(row[name] for row in rows))
                    for part, name in zip(("value", "lower", "upper"), names, strict=True)
                }
                for quantity, names in QUANTITIES.items()
            },
        }
        for layer, rows in layers.items()
    ]


def looseness(
    shift: Mapping[int, Sequence[Mapping[str, Any]]], epochs: int, updates: int
) -> dict[str, Any]:
    """Return every bound as a multiple of the distance, by layer and by epoch.

    Args:
        shift: Rows of the probe by seed.
        epochs: Epochs of the run.
        updates: Updates of the run.

    Returns:
        ``layers`` and ``epochs`` (the numbers of those with a measurement), and per bound
        ``by_layer`` (medians over seeds and updates) and ``by_epoch`` (medians over layers, seeds
        and the updates of an epoch).
    """
    moved = [
        (row_name(row), math.ceil(row["step"] * epochs / updates), row)
        for rows in shift.values()
        for row in rows
        if not row["reason"] and row["value"] > 0
    ]
    layers = list(dict.fromkeys(layer for layer, _, _ in moved))
    found = sorted({epoch for _, epoch, _ in moved})
    names = [k for k in (moved[0][2] if moved else {}) if k.startswith(("lower_", "upper_"))]

    def ratio(name: str, wanted: Any) -> float | None:
        ratios = [row[name] / row["value"] for layer, epoch, row in moved if wanted(layer, epoch)]
        return _round(median(ratios), 4) if ratios else None

    return {
        "layers": layers,
        "epochs": found,
        "bounds": {
            name: {
                "by_layer": [ratio(name, lambda layer, _, k=k: layer == k) for k in layers],
                "by_epoch": [ratio(name, lambda _, epoch, k=k: epoch == k) for k in found],
            }
            for name in names
        },
    }


def _epochs(row: Mapping[str, Any], epochs: int) -> float | None:
    updates = row["updates_to_target"]
    return None if updates is None else _round(updates * epochs / row["step"])


def _layers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(rows[0]["alpha"])


def _rounded(values: Any) -> dict[str, Any]:
    """Return a NamedTuple as a dictionary, its numbers to six digits."""
    return {
        name: [_round(x) for x in value] if isinstance(value, tuple) else _round(value)
        for name, value in values._asdict().items()
    }


def _round(value: Any, digits: int = 6) -> Any:
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def to_plain(value: Any) -> Any:
    """Return what JSON can hold: no tuples, and null for NaN; inf is a string."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {name: to_plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    return value


def number(value: Any) -> float:
    """Decode a number of a record, where NaN is null and infinity is a string."""
    return math.nan if value is None else float(value)
