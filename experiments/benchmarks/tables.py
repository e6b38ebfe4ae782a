"""The tables of a benchmark, from what ``--json`` stores: the terminal's and the pages'."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.analysis.names import label
from experiments.benchmarks.gpu.tables import gpu_tables
from experiments.benchmarks.layer_tables import QUARTILES, RATIO, layer_tables
from experiments.common.table import Column, Table

Rows = Sequence[Mapping[str, Any]]


def bench_tables(stored: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of a benchmark by their keys.

    Args:
        stored: What ``python -m experiments bench BENCHMARK --json FILE`` writes.
    """
    makers: dict[str, Callable[[Any], list[Table]]] = {
        "layer": layer_tables,
        "tpu": _tpu,
        "gpu": gpu_tables,
        "probe": _probe,
        "data": _data,
        "seeds": _seeds,
        "step": _step,
        "eager": _eager,
        "compile": _compile,
        "measures": _measures,
        "augment": _augment,
    }
    return {table.key: table for table in makers[stored["benchmark"]](stored["rows"])}


def _tpu(rows: Rows) -> list[Table]:
    def key(row: Any) -> tuple[Any, ...]:
        return (*row["shape"], row["dtype"])

    base = {key(row): row["bytes_accessed"] for row in rows if row["layer"] == "BatchNorm"}
    lines: list[tuple[Any, ...]] = [
        (
            "x".join(map(str, row["shape"])),
            *(row["dtype"], row["layer"], row["bytes_accessed"] / 1e6),
            row["bytes_accessed"] / base[key(row)],
            ", ".join(f"{count} {kind}" for kind, count in row["collectives"].items()),
            *(row["guarded_collectives"], row["peak_bytes"] / 1e6),
        )
        for row in rows
    ]
    columns = (
        *(Column("input"), Column("dtype"), Column("layer")),
        *(Column("bytes accessed, MB", "{:.1f}"), Column("against BatchNorm", "{:.3f}")),
        *(Column("collectives"), Column("guarded", "{:.0f}"), Column("peak memory, MB", "{:.1f}")),
    )
    return [Table("tpu", "As the TPU compiler sees it", "per device", columns, lines)]


def _probe(rows: Mapping[str, Rows]) -> list[Table]:
    others = list(dict.fromkeys(n for row in rows["distance"] for n in row["ms"] if n != "ours"))
    lines: list[tuple[Any, ...]] = [
        (
            *(row["n"], row["d"], row["case"], row["cost_ms"], row["ms"]["ours"]),
            *(
                (row["ms"][name], row["ratios"][name][0]) if row["ms"][name] is not None else None
                for name in others
            ),
            row["gap"],
        )
        for row in rows["distance"]
    ]
    columns = (
        *(Column("n", "{:.0f}"), Column("d", "{:.0f}"), Column("samples")),
        *(Column("cost matrix", "{:.2f}"), Column("ours, certified", "{:.2f}")),
        *(Column(name, "{:.2f} ({:.1f})", ("ms", "ratio")) for name in others),
        Column("our gap", "{:.1e}"),
    )
    caption = "ms, and time against ours (median of neighbouring calls)"
    distance = Table("distance", "Distance, cost matrix given", caption, columns, lines)
    share = _share(rows["share"], rows.get("run", []))
    return [distance, share, *([_first(rows["first"])] if "first" in rows else [])]


def _first(rows: Rows) -> Table:
    lines = [(r["part"], r["trace_s"], r["compile_s"], r["against_forward"]) for r in rows]
    columns = (
        *(Column("part"), Column("trace, s", "{:.2f}"), Column("compile, s", "{:.2f}")),
        Column("against the forward pass", "{:.2f}"),
    )
    caption = "least of three rounds, each with empty caches"
    return Table("first", "The first call, on ResNet-50", caption, columns, lines)


def _share(alone: Rows, runs: Rows) -> Table:
    """Return what probing adds; the columns of whole runs only where there are any."""
    columns: tuple[Column, ...] = (
        *(Column("network"), Column("step, ms", "{:.1f}"), Column("images probed", "{:.0f}")),
        *(Column("probe, ms", "{:.1f}"), Column("every, updates", "{:.0f}")),
        Column("share of the updates, %", "{:.1f}", factor=100),
    )
    lines: list[tuple[Any, ...]] = [
        (r["network"], r["step_ms"], r["images"], r["probe_ms"], r["every"], r["share"])
        for r in alone
    ]
    title = "What probing adds to training"
    if not runs:
        return Table("share", title, "", columns, lines)
    columns += (
        Column("added to a run, %", "{:.1f} ({:.1f} to {:.1f})", QUARTILES, 100),
        Column("blocks", "{:.0f}"),
    )
    lines = [(*line, None, None) for line in lines] + [
        (
            *(
                f"digits run, {label(r['norm'])}",
                r["step_ms"],
                r["images"],
                r["probe_ms"],
                r["every"],
            ),
            *(r["probe_ms"] / (r["every"] * r["step_ms"]), tuple(r["added"]), r["blocks"]),
        )
        for r in runs
    ]
    caption = (
        "probe, share: of a measurement by itself; added: runs with and without the probe, epochs "
        f"in turns; median and quartiles of blocks of {runs[0]['block_updates']} updates"
    )
    return Table("share", title, caption, columns, lines)


def _data(rows: Rows) -> list[Table]:
    lines: list[tuple[Any, ...]] = [
        (
            *(row["pipeline"], row["images"], row["step"], row["pipeline_rate"], row["step_rate"]),
            *(row["pipeline_rate"] / row["step_rate"], row["both_rate"], row["waiting"]),
        )
        for row in rows
    ]
    columns = (
        *(Column("pipeline"), Column("image, batch"), Column("step")),
        *(Column("pipeline alone", "{:,.0f}"), Column("step alone", "{:,.0f}")),
        *(Column("pipeline / step", "{:.1f}"), Column("training", "{:,.0f}")),
        Column("step waits, %", "{:.1f}", factor=100),
    )
    return [Table("data", "Images per second", "", columns, lines)]


def _seeds(rows: Rows) -> list[Table]:
    lines = [
        (
            label(r["norm"]),
            r["batch_size"],
            r["seeds"],
            r["alone_ms"],
            r["together_ms"],
            tuple(r["ratio"]),
        )
        for r in rows
    ]
    columns = (
        *(Column("method"), Column("batch", "{:.0f}"), Column("seeds", "{:.0f}")),
        *(Column("one after another, ms", "{:.2f}"), Column("together, ms", "{:.2f}")),
        Column("together / one by one", RATIO, QUARTILES),
    )
    caption = "time of an update of all seeds; median and quartiles of neighbouring rounds"
    return [Table("seeds", "Several seeds in one program", caption, columns, lines)]


def _step(rows: Rows) -> list[Table]:
    leading = (Column("activations"), Column("batch", "{:.0f}"), Column("BatchNorm, ms", "{:.1f}"))
    caption = "time against BatchNorm's; median and quartiles of neighbouring updates"
    fields = ("precision", "batch_size", "base_ms")
    return [_ratios("step", "A training step", caption, _labelled(rows), leading, fields)]


def _eager(rows: Rows) -> list[Table]:
    lines = [
        ("x".join(map(str, row["shape"])), row["call"], row["base_ms"], tuple(row["ratio"]))
        for row in rows
    ]
    columns = (
        *(Column("shape"), Column("call"), Column("BatchNorm, ms", "{:.2f}")),
        Column("UnitizedBatchNorm", RATIO, QUARTILES),
    )
    caption = "time against BatchNorm's; median and quartiles of neighbouring calls"
    return [Table("eager", "Calls outside jit", caption, columns, lines)]


def _compile(rows: Rows) -> list[Table]:
    leading = (Column("batch", "{:.0f}"), Column("BatchNorm, s", "{:.1f}"))
    caption = "tracing and compiling, against BatchNorm's; median and extremes of neighbouring ones"
    title = "Compiling a training step"
    return [_ratios("compile", title, caption, _labelled(rows), leading, ("batch_size", "base_s"))]


def _measures(rows: Rows) -> list[Table]:
    leading = (
        *(Column("layers", "{:.0f}"), Column("images", "{:.0f}")),
        *(Column("update, ms", "{:.1f}"), Column("em alone, ms", "{:.1f}")),
        Column("em adds", RATIO, QUARTILES),
    )
    caption = (
        "em adds: to two forward passes, in units of them; others: with one measure more, against "
        "em alone; median and quartiles of neighbouring rounds"
    )
    fields = ("layers", "images", "step_ms", "base_ms", "added")
    return [_ratios("measures", "A measurement of shift", caption, rows, leading, fields)]


def _augment(rows: Rows) -> list[Table]:
    leading = (Column("batch", "{:.0f}"), Column("without, ms", "{:.1f}"))
    caption = "time of an update against one without; median and quartiles of neighbouring updates"
    title = "A step with amplitude-phase recombination"
    return [_ratios("augment", title, caption, rows, leading, ("batch_size", "base_ms"))]


def _labelled(rows: Rows) -> Rows:
    """Return rows whose ratios have the names of methods that people read."""
    return [{**row, "ratios": {label(k): v for k, v in row["ratios"].items()}} for row in rows]


def _ratios(
    key: str,
    title: str,
    caption: str,
    rows: Rows,
    leading: Sequence[Column],
    fields: Sequence[str],
) -> Table:
    """Return a row per network: some fields, then the ratios by their names."""
    names = list(dict.fromkeys(name for row in rows for name in row["ratios"]))
    lines = [
        (
            *(row["network"], *(_cell(row[field]) for field in fields)),
            *(tuple(row["ratios"][name]) for name in names),
        )
        for row in rows
    ]
    columns = (Column("network"), *leading, *(Column(n, RATIO, QUARTILES) for n in names))
    return Table(key, title, caption, columns, lines)


def _cell(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
