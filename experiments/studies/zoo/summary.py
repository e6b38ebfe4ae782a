"""What the zoo found, of every method that has been measured: entries, table, Markdown."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.analysis.comparison import QUANTITIES, all_certificates, compare
from experiments.analysis.names import label
from experiments.analysis.results import Results, read_results
from experiments.common import files
from experiments.common.statistics import largest, mean_std, median, smallest
from experiments.common.table import (
    Cell,
    Column,
    Table,
    mean_std_column,
    select_columns,
    to_markdown,
)
from experiments.studies.zoo.config import METHODS, PARTS, ZooConfig
from unitnorm_jax.ics import row_name

Entry = dict[str, Any]


def result_path(out: Path, method: str, part: str) -> Path:
    """Return the file of one measurement of one method."""
    return out / "results" / f"{method}.{part}.json"


def read_entries(config: ZooConfig) -> list[Entry]:
    """Return one entry per method of which anything is there: measurements by name, and shift."""
    base = _run(config, config.base)
    entries: list[Entry] = []
    for method in dict.fromkeys((*METHODS, *config.methods)):
        entry: Entry = {"method": method}
        for part in PARTS:
            path = result_path(config.out, method, part)
            if path.exists():
                entry[part] = files.read_numbers(path)
        found = _run(config, method)
        if found is not None and found.ics(method):
            entry["shift"] = _shift(method, found, config.base, base)
        if len(entry) > 1:
            entries.append(entry)
    return entries


def _run(config: ZooConfig, method: str) -> Results | None:
    """Return the run of a method; None if there is none, or it diverged."""
    path = result_path(config.out, method, "train")
    if not path.exists():
        return None
    train = files.read_numbers(path)
    return read_results(config.out / "runs" / train["run"]) if "results" in train else None


def _shift(method: str, found: Results, base_name: str, base: Results | None) -> Entry:
    """Medians over updates and seeds of every layer, and pairs with the same layer of the base."""
    rows = found.ics(method)
    certificates = all_certificates(rows)
    shift: Entry = {
        "layers": _layers(rows),
        "measured": certificates.measured,
        "open": certificates.open,
        "largest_gap": certificates.largest_gap,
        "not_finite": certificates.not_finite,
    }
    if base is not None and method != base_name:
        for quantity in QUANTITIES:
            shift[quantity] = [
                {
                    "layer": pair.layer,
                    "ratio": pair.ratio,
                    "seed_ratios": list(pair.seed_ratios),
                    "certified_less": pair.certified_less,
                    "certified_more": pair.certified_more,
                    "less": pair.less(method, base_name),
                }
                for pair in compare(rows, base.ics(base_name), quantity)
            ]
    return shift


def _layers(rows: Mapping[int, Any]) -> list[Entry]:
    """Median distance, with the medians of both ends of its certificate, by layer."""
    by_layer: dict[str, list[Any]] = {}
    for measured in rows.values():
        for row in measured:
            if not row["reason"]:
                by_layer.setdefault(row_name(row), []).append(row)
    names = [name for quantity in QUANTITIES.values() for name in quantity]
    return [
        {"layer": layer, **{n: median(row[n] for row in found) for n in names}}
        for layer, found in by_layer.items()
    ]


def zoo_table(entries: list[Entry], config: ZooConfig) -> Table:
    """Return all columns; "" where nothing has been measured, None where nothing can be."""
    base = label(config.base)
    counts = "{:.0f}, {:.0f} of {:.0f}", ("less", "more", "layers")
    middle = "{:.3g} ({:.2g}-{:.2g})", ("median", "smallest", "largest")
    columns = (
        Column("method"),
        mean_std_column("test accuracy, %", 2, 100),
        mean_std_column(f"updates to {100 * config.target_accuracy:g} %", 0),
        Column(f"update time / {base}", "{:.2f} ({:.2f}-{:.2f})", ("median", "25 %", "75 %")),
        *(Column(name, *middle) for name in ("shift", "relative shift")),
        Column(f"layers that moved less, more than {base}'s", *counts),
        Column("the same, relative", *counts),
        Column("smallest batch", "{:.0f}"),
    )
    rows = [
        (
            *(label(entry["method"]), *_trained(entry), _time(entry)),
            *(_median(entry, quantity) for quantity in ("value", "relative")),
            *(_moved(entry, quantity) for quantity in QUANTITIES),
            _batch(entry, config),
        )
        for entry in entries
    ]
    return Table("zoo", "Every method in the same network", "", columns, rows)


def _trained(entry: Entry) -> tuple[Cell, Cell]:
    if "train" not in entry:
        return "", ""
    if "diverged" in entry["train"]:
        return "diverged", None
    results = entry["train"]["results"]
    reached = [r["updates_to_target"] for r in results if r["updates_to_target"] is not None]
    updates: Cell = mean_std(reached)
    if len(reached) < len(results):
        updates = f"{mean_std_column('', 0).text(updates)} ({len(reached)} of {len(results)} seeds)"
    return mean_std([r["accuracy"] for r in results]), updates


def _time(entry: Entry) -> Cell:
    return (entry["time"]["ratio"], *entry["time"]["quartiles"]) if "time" in entry else ""


def _median(entry: Entry, quantity: str) -> Cell:
    """Over layers, of their medians, with smallest and largest."""
    if "shift" not in entry:
        return None if "diverged" in entry.get("train", {}) else ""
    values = [layer[quantity] for layer in entry["shift"]["layers"]]
    return (median(values), smallest(values), largest(values)) if values else None


def _moved(entry: Entry, quantity: str) -> Cell:
    pairs = entry.get("shift", {}).get(quantity)
    if pairs is None:
        return None if "train" in entry else ""
    less = sum(pair["less"] == entry["method"] for pair in pairs)
    more = sum(pair["less"] not in (entry["method"], None) for pair in pairs)
    return less, more, len(pairs)


def _batch(entry: Entry, config: ZooConfig) -> Cell:
    if "batch" not in entry:
        return ""
    smallest = entry["batch"]["smallest"]
    return f"> {config.batch_sizes[0]}" if smallest is None else smallest


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' if n > 1 else ''}"


def caption(entries: list[Entry], config: ZooConfig) -> str:
    """Say what the columns are."""
    seeds = len(config.seeds)
    shifts = [entry["shift"] for entry in entries if "shift" in entry]
    gaps = [s["largest_gap"] for s in shifts if math.isfinite(s["largest_gap"])]
    text = (
        f"{_count(config.epochs, 'epoch')} of {config.dataset}, batch {config.batch_size}, "
        f"n = {_count(seeds, 'seed')}, paired initial weights and data order; accuracy of the "
        "last state, mean ± sample standard deviation. "
    )
    if shifts:
        text += (
            "Shift: certified Earth Mover distance of one update, medians over updates and seeds; "
            "of these the median over layers (smallest-largest); relative: in spreads of the "
            "layer. Less, more: in every seed. "
            f"{sum(s['measured'] for s in shifts)} distances, "
            f"{sum(s['open'] for s in shifts)} certificates open"
        )
        text += f", largest gap {max(gaps):.1e} of the distance. " if gaps else ". "
    times = [entry["time"] for entry in entries if "time" in entry]
    if times:
        text += "Update time: median (quartiles) of neighbouring updates. "
    if any("batch" in entry for entry in entries):
        sizes = ", ".join(map(str, config.batch_sizes))
        text += (
            f"Smallest batch of {sizes} that reaches {100 * config.trains:g} % in "
            f"{_count(config.batch_epochs, 'epoch')}, one seed."
        )
    return text.strip()


# Columns of the two tables for a terminal, which has no room for all.
GROUPS = {"What was reached": (0, 1, 2, 3, 8), "How far layers moved": (0, 4, 5, 6, 7)}


def tables(entries: list[Entry], config: ZooConfig) -> list[Table]:
    """Return the table for a terminal, in two."""
    table = zoo_table(entries, config)
    names = [column.name for column in table.columns]
    return [
        select_columns(table, [names[i] for i in columns])._replace(title=title)
        for title, columns in GROUPS.items()
    ]


def markdown(entries: list[Entry], config: ZooConfig) -> str:
    """Return all columns as Markdown."""
    return f"{to_markdown(zoo_table(entries, config))}\n{caption(entries, config)}\n"
