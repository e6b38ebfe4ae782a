"""The tables of ``bench gpu``: every program, and what groups of them say."""

from collections.abc import Mapping, Sequence
from statistics import geometric_mean
from typing import Any

from experiments.common.table import Column, Table

Row = Mapping[str, Any]
_BASE, _OURS = "BatchNorm", "UnitizedBatchNorm"


def gpu_tables(rows: Sequence[Row]) -> list[Table]:
    """Return the tables ``gpu``, ``targets`` and, where programs were timed, ``measured``."""
    made = [_programs(rows), _targets(rows)]
    return [*made, _measured(rows)] if "ratio" in rows[0] else made


def _case(row: Row) -> tuple[Any, ...]:
    return row["kind"], tuple(row["shape"]), row["dtype"], row["devices"]


def _start(row: Row) -> tuple[Any, ...]:
    shape = "x".join(map(str, row["shape"]))
    return row["kind"], shape, row["dtype"], row["devices"]


_START = (Column("program"), Column("shape, one GPU"), Column("dtype"), Column("GPUs", "{:.0f}"))


def _programs(rows: Sequence[Row]) -> Table:
    base = {_case(row): row for row in rows if row["norm"] == _BASE}
    lines: list[tuple[Any, ...]] = [
        (
            *(*_start(row), row["norm"], (row["kernels"], row["copies"])),
            (row["reads"], row["writes"]) if row["reads"] else None,
            *(row["bytes"] / 1e6, row["bytes"] / base[_case(row)]["bytes"]),
            *(row["time_us"], row["time_us"] / base[_case(row)]["time_us"]),
            (row["conditionals"], row["in_graphs"]),
            row["host_round_trips"],
            row["compile_s"],
        )
        for row in rows
    ]
    columns = (
        *(*_START, Column("layer"), Column("kernels", "{:.0f} + {:.0f}", ("kernels", "copies"))),
        Column("full arrays", "{:.0f}R {:.0f}W", ("reads", "writes")),
        *(Column("MB", "{:,.1f}"), Column("/ BatchNorm", "{:.2f}")),
        *(Column("model, us", "{:,.1f}"), Column("/ BatchNorm", "{:.2f}")),
        Column("conditionals (in graphs)", "{:.0f} ({:.0f})", ("all", "in graphs")),
        Column("host round trips", "{:.0f}"),
        Column("compiled in, s", "{:.1f}"),
    )
    caption = (
        "kernels besides convolutions and products, + copies; model: the compiler's time of all "
        "kernels but those, and 1 us for each launch"
    )
    return Table("gpu", "As the GPU compiler sees it", caption, columns, lines)


def _targets(rows: Sequence[Row]) -> Table:
    """Ours over BatchNorm's, for each group: geometric mean and largest."""
    base = {_case(row): row for row in rows if row["norm"] == _BASE}
    groups: dict[tuple[str, int], list[tuple[Row, Row]]] = {}
    for row in rows:
        if row["norm"] == _OURS:
            pair = row, base[_case(row)]
            groups.setdefault((row["group"], row["devices"]), []).append(pair)
    lines: list[tuple[Any, ...]] = []
    for (group, devices), pairs in groups.items():
        step = pairs[0][0]["reads"] == 0
        names = ("large_bytes", "large_us") if step else ("bytes", "time_us")
        found = [[ours[name] / other[name] for ours, other in pairs] for name in names]
        launches = [ours["kernels"] / other["kernels"] for ours, other in pairs]
        trips = sum(ours["host_round_trips"] for ours, _ in pairs)
        cells = [(geometric_mean(ratios), max(ratios)) for ratios in (*found, launches)]
        lines.append((group, devices, len(pairs), *cells, trips))
    style, parts = "{:.3f} ({:.3f})", ("geometric mean", "largest")
    columns = (
        *(Column("programs"), Column("GPUs", "{:.0f}"), Column("number", "{:.0f}")),
        *(Column(name, style, parts) for name in ("bytes", "model", "kernels")),
        Column("host round trips", "{:.0f}"),
    )
    caption = (
        "geometric mean (largest); of training steps, bytes and modelled time of kernels that move "
        "5 MB or more"
    )
    title = "UnitizedBatchNorm against BatchNorm on a GPU"
    return Table("targets", title, caption, columns, lines)


def _measured(rows: Sequence[Row]) -> Table:
    base = {_case(row): row for row in rows if row["norm"] == _BASE}
    lines: list[tuple[Any, ...]] = [
        (
            *(*_start(row), row["norm"], row["time_us"], row["measured_us"]),
            row["time_us"] / base[_case(row)]["time_us"],
            tuple(row["ratio"]),
        )
        for row in rows
    ]
    quartiles = ("median", "lower quartile", "upper quartile")
    columns = (
        *(*_START, Column("layer"), Column("model, us", "{:,.1f}")),
        *(Column("measured, us", "{:,.1f}"), Column("model / BatchNorm", "{:.2f}")),
        Column("measured / BatchNorm", "{:.2f} ({:.2f}-{:.2f})", quartiles),
    )
    caption = (
        "measured: median; ratios: median and quartiles of neighbouring calls; the model has no "
        "convolutions and products"
    )
    return Table("measured", "Model against measured", caption, columns, lines)
