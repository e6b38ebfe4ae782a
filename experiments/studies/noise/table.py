"""The tables: one of each kind of noise."""

from collections.abc import Sequence

from experiments.common.statistics import mean_std
from experiments.common.table import Column, Table
from experiments.studies.noise.study import KINDS, METHODS, Row, select

SHORT = {"recalibrated": "recal."}  # For narrow terminals.


def noise_tables(rows: Sequence[Row]) -> dict[str, Table]:
    """Return a table for each kind of noise, by its name."""
    kinds = dict.fromkeys(row.kind for row in rows)
    return {kind: _table([row for row in rows if row.kind == kind], kind) for kind in kinds}


def _table(rows: Sequence[Row], kind: str) -> Table:
    pairs = [
        (norm, method)
        for norm in dict.fromkeys(row.norm for row in rows)
        for method in METHODS
        if len(select(rows, norm=norm, method=method))
    ]
    seeds, chips = ({getattr(row, name) for row in rows} for name in ("seed", "chip"))
    n = f"n = {len(seeds)} networks x {len(chips)} chips"
    columns = [Column(kind, "{:g}")]
    for norm, method in pairs:
        alone = (norm, "tracked") not in pairs
        head = norm if alone else f"{norm}\n{SHORT.get(method, method)}"
        columns.append(Column(head, "{:.1f} ({:.1f})", ("mean", "std"), 100))
    cells = [
        (
            level,
            *(mean_std(select(rows, norm=norm, method=m, level=level)) for norm, m in pairs),
        )
        for level in dict.fromkeys(row.level for row in rows)
    ]
    title = f"{kind} noise: test accuracy, %, against {KINDS[kind].unit}; {n}"
    return Table(kind, title, "", tuple(columns), cells)
