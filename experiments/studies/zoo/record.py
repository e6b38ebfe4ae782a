"""The zoo as one small JSON: what its table and figure in the pages are made of."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from experiments.common.table import Table
from experiments.config.experiment import construct
from experiments.studies.zoo.config import PARTS, ZooConfig
from experiments.studies.zoo.figure import methods_figure
from experiments.studies.zoo.summary import Entry, caption, zoo_table

# Of a seed's result and of a pair of layers; the rest is in the zoo's folder.
RESULT = ("seed", "accuracy", "correct", "count", "cross_entropy", "updates_to_target")
PAIR = ("layer", "ratio", "seed_ratios", "certified_less", "certified_more", "less")


def zoo_record(entries: list[Entry], config: ZooConfig) -> dict[str, Any]:
    """Return the record, ready for JSON.

    Args:
        entries: Of every method, see ``summary.read_entries``.
        config: The options.

    Returns:
        ``options``; ``versions`` (code, libraries, hardware) of the first measurement; and per
        method, in ``zoo``, what was measured, with when, by which command, and what differs from
        these versions. Numbers that were derived have six digits.
    """
    measured = [entry[part] for entry in entries for part in PARTS if part in entry]
    versions = {name: v for name, v in measured[0]["versions"].items() if name != "time"}
    return {
        "options": config.options(),
        "versions": versions,
        "zoo": [_rounded(_small(entry, versions)) for entry in entries],
    }


def record_table(record: Mapping[str, Any]) -> Table:
    """Return the table of a record, its caption included."""
    config = construct(ZooConfig, record["options"])
    return zoo_table(record["zoo"], config)._replace(caption=caption(record["zoo"], config))


def record_figure(record: Mapping[str, Any]) -> Figure:
    """Return the figure of a record."""
    return methods_figure(record["zoo"], construct(ZooConfig, record["options"]))


def _small(entry: Entry, versions: Mapping[str, Any]) -> Entry:
    small: Entry = {"method": entry["method"]}
    for part in PARTS:
        if part in entry:
            found = dict(entry[part])
            theirs = found.pop("versions")
            found["time"] = theirs["time"]
            found["other_versions"] = {n: v for n, v in theirs.items() if versions.get(n, v) != v}
            small[part] = found
    if "results" in small.get("train", {}):
        results = small["train"]["results"]
        small["train"]["results"] = [{name: row[name] for name in RESULT} for row in results]
    if "shift" in entry:
        small["shift"] = {
            name: [{n: pair[n] for n in PAIR} for pair in value]
            if name in ("absolute", "relative")
            else value
            for name, value in entry["shift"].items()
        }
    return small


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
