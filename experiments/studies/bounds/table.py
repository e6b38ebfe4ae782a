"""The table of medians."""

from collections.abc import Sequence

from experiments.common.table import Column, Table
from experiments.studies.bounds import study


def bounds_table(rows: Sequence[study.Row]) -> Table:
    """Return exact distance, bound and relative distance, of BatchNorm and of unitized outputs."""
    cells: list[tuple[object, ...]] = []
    for name in ("dimension", "noise"):
        columns = [
            study.median(rows, field, study=name, alpha=alpha)
            for alpha in (0.0, 1.0)
            for field in ("distance", "bound", "relative")
        ]
        at = columns[0][0]
        cells += [(name, x, *(y[i] for _, y in columns)) for i, x in enumerate(at)]
    heads = [
        f"{name}\n{what}"
        for name in ("batch norm", "unitized")
        for what in ("exact", "bound", "/ spread")
    ]
    return Table(
        "bounds",
        "EM distance of the outputs before and after: exact, and its bound",
        "",
        (Column("varied"), Column("at", "{:g}"), *(Column(head, "{:.3g}") for head in heads)),
        cells,
    )
