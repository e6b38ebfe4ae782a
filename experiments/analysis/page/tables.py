"""The tables of a page, from the content of a run folder."""

import math
from typing import Any

from experiments.analysis import report, shift
from experiments.analysis.comparison import (
    Certificates,
    LayerComparison,
    certificates,
    gap,
    tightness,
)
from experiments.analysis.findings import Compared
from experiments.analysis.results import Results
from experiments.common.statistics import largest
from experiments.common.table import Column, Table, interval
from unitnorm_jax.ics import row_name

MAX_OPEN = 50  # Rows of the list of open certificates; the largest gaps come first.
PERCENT = "{:.0f} %"


def summary_table(results: Results) -> Table:
    """Return one row per method: accuracy, updates to the target, time."""
    rows = report.result_rows(results.summary["results"], results.summary["target_accuracy"])
    rows = [row for row in rows if not row[0].startswith("mean alpha")]
    columns = (Column("method"), *(Column(what, "{}") for what, _ in rows))
    cells = [
        (results.label(norm), *(cells[i] for _, cells in rows))
        for i, norm in enumerate(results.names)
    ]
    return Table("results", "Results", report.spread(results.summary["results"]), columns, cells)


def comparison_tables(results: Results, compared: Compared) -> list[Table]:
    """Return one table per comparison, one row per layer.

    Args:
        results: Of a finished run or a comparison.
        compared: ``shift.comparisons`` of it.
    """
    found = {
        norm: {layer.layer: layer for layer in certificates(results.ics(norm))}
        for norm in results.probed()
    }
    tables = []
    for norm, base, quantity, layers in compared:
        if not layers:
            continue
        names = [results.label(base), results.label(norm)]
        columns = (
            *(Column("layer"), Column("d", "{:.0f}"), Column("pairs", "{:.0f}")),
            *(Column(f"distance, {name}", "{:.3g}") for name in names),
            *(Column("ratio", "{:.3f}"), interval("quartiles", "{:.2f}")),
            Column("over seeds", "{}"),
            Column("certified less, more", f"{PERCENT}, {PERCENT}", ("less", "more"), 100),
            *(Column("open", "{:.0f}, {:.0f}", tuple(names)), Column("largest gap", "{:.1e}")),
            Column("moved less"),
        )
        rows = [
            _compared(results, norm, base, layer, [found[n][layer.layer] for n in (base, norm)])
            for layer in layers
        ]
        title = f"{names[1]} against {names[0]}. {shift.TITLES[quantity]}"
        tables.append(Table(f"{quantity}-{norm}", title, "", columns, rows))
    return tables


def _compared(
    results: Results, norm: str, base: str, layer: LayerComparison, sides: list[Certificates]
) -> tuple[Any, ...]:
    return (
        *(layer.layer, layer.d, layer.pairs, layer.median_base, layer.median, layer.ratio),
        *(layer.quartiles, shift.seed_range(layer)),
        (layer.certified_less, layer.certified_more),
        tuple(side.open for side in sides),
        largest(side.largest_gap for side in sides),
        shift.moved_less(results, layer, norm, base),
    )


def bounds_tables(results: Results) -> list[Table]:
    """Return one table per method: the best closed-form bounds of every layer."""
    columns = (
        *(Column("layer"), Column("d", "{:.0f}"), Column("measured", "{:.0f}")),
        *(Column("distance", "{:.3g}"), Column("lower / distance", "{:.3g}")),
        *(Column("best lower"), Column("upper / distance", "{:.3g}"), Column("best upper")),
        Column("pairing optimal", PERCENT, factor=100),
    )
    return [
        Table(
            f"bounds-{norm}",
            f"Bounds of {results.label(norm)}",
            "",
            columns,
            [
                (
                    *(row.layer, row.d, row.measured, row.distance, row.lower, row.lower_name),
                    *(row.upper, row.upper_name, row.pairing_optimal),
                )
                for row in tightness(results.ics(norm))
            ],
        )
        for norm in results.probed()
    ]


def open_table(results: Results) -> Table:
    """Return the measurements whose certificate stayed open, the largest gap first."""
    rows = open_rows(results)
    shown = rows[:MAX_OPEN]
    columns = (
        *(Column("layer"), Column("method"), Column("seed", "{:.0f}"), Column("update", "{:.0f}")),
        *(Column(name, "{:.6g}") for name in ("lower", "value", "upper")),
        Column("gap, relative", "{:.2e}"),
    )
    title = f"{len(rows)} stayed open"
    title += f"; the {len(shown)} largest gaps" if len(rows) > len(shown) else ""
    ends = ("certified_lower", "value", "certified_upper")
    cells = [
        (
            *(row["name"], results.label(row["norm"]), row["seed"], row["step"]),
            *(*(row[end] for end in ends), row["gap"]),
        )
        for row in shown
    ]
    return Table("open", title, "", columns, cells)


def open_rows(results: Results) -> list[dict[str, Any]]:
    """Return the measurements whose certificate stayed open, the largest gap first."""
    rows = [
        {"norm": run.norm, "seed": run.seed, "name": row_name(row), "gap": gap(row), **row}
        for run in results.runs
        for row in run.ics
        if not row["exact"] and not row["reason"]
    ]
    return sorted(rows, key=lambda row: (not math.isnan(row["gap"]), -row["gap"]))
