"""The tables of ``bench layer``."""

import math
from collections.abc import Mapping, Sequence
from statistics import geometric_mean
from typing import Any

from experiments.common.table import Column, Table

Rows = Sequence[Mapping[str, Any]]
RATIO = "{:.2f} ({:.2f}-{:.2f})"
QUARTILES = ("median", "lower quartile", "upper quartile")


def layer_tables(rows: Mapping[str, Any]) -> list[Table]:
    """Return the tables: of time by passes, ``traffic``, ``kept`` and ``bandwidth``."""
    made = []
    for key, passes in (("forward_backward", "forward+backward"), ("forward", "forward")):
        timed = [row for row in rows["time"] if row["passes"] == passes]
        if not timed:
            continue
        others = list(dict.fromkeys(name for row in timed for name in row["ratios"]))
        others = [name for name in others if name != "BatchNorm"]
        lines: list[tuple[Any, ...]] = [
            (
                *("x".join(map(str, row["shape"])), row["dtype"], row["base_ms"]),
                *(tuple(row["ratios"][name]) for name in others),
            )
            for row in timed
        ]
        for dtype in dict.fromkeys(row["dtype"] for row in timed):
            of = [row for row in timed if row["dtype"] == dtype and len(row["shape"]) > 2]
            means = [(geometric_mean(row["ratios"][name][0] for row in of),) for name in others]
            lines.append(("geometric mean, rank 4", dtype, None, *means))
        columns = (
            *(Column("shape"), Column("dtype"), Column("BatchNorm, ms", "{:.2f}")),
            *(Column(name, RATIO, QUARTILES) for name in others),
        )
        title = f"{passes}: time against flax.linen.BatchNorm"
        caption = "median and quartiles of the ratios of neighbouring calls"
        made.append(Table(key, title, caption, columns, lines))
    made += [_traffic(rows["time"]), _kept(rows["kept"])]
    return [*made, _bandwidth(rows["time"], rows["copy_rate"])] if "copy_rate" in rows else made


def _traffic(timed: Rows) -> Table:
    names = list(timed[0]["traffic"])
    lines: list[tuple[Any, ...]] = [
        (
            *("x".join(map(str, row["shape"])), row["dtype"], row["passes"]),
            *(tuple(row["traffic"][name]) for name in names),
        )
        for row in timed
    ]
    columns = (
        *(Column("shape"), Column("dtype"), Column("pass")),
        *(Column(name, "{:.0f}R {:.0f}W", ("reads", "writes")) for name in names),
    )
    title = "Reads (R) and writes (W) of full arrays in the compiled program"
    return Table("traffic", title, "", columns, lines)


def _bandwidth(timed: Rows, copy_rate: float) -> Table:
    """Return the bandwidth of reading and writing full arrays, relative to a copy."""
    names = list(timed[0]["traffic"])
    lines: list[tuple[Any, ...]] = []
    for row in timed:
        size = math.prod(row["shape"]) * {"float32": 4, "bfloat16": 2, "float16": 2}[row["dtype"]]
        seconds = {name: 1e-3 * row["base_ms"] * row["ratios"][name][0] for name in names}
        rates = {name: sum(row["traffic"][name]) * size / seconds[name] for name in names}
        start = ("x".join(map(str, row["shape"])), row["dtype"], row["passes"])
        lines.append((*start, *((rate / 1e9, 100 * rate / copy_rate) for rate in rates.values())))
    columns = (
        *(Column("shape"), Column("dtype"), Column("pass")),
        *(Column(name, "{:,.0f} ({:.0f} %)", ("GB/s", "share of a copy's")) for name in names),
    )
    title = "Full arrays read and written, GB/s, and of what a copy of 268 MB moves"
    caption = f"the copy: {copy_rate / 1e9:,.0f} GB/s; above 100 %: what stays in the caches"
    return Table("bandwidth", title, caption, columns, lines)


def _kept(kept: Mapping[str, Mapping[str, float]]) -> Table:
    names = list(next(iter(kept.values())))
    lines = [(dtype, *(sizes[name] for name in names)) for dtype, sizes in kept.items()]
    columns = (Column("dtype"), *(Column(name, "{:.2f}") for name in names))
    title = "Kept for the backward pass by each conv-norm-relu, in units of its input"
    return Table("kept", title, "", columns, lines)
