"""A table on terminals of any width."""

import io

import pytest
from rich.console import Console

from experiments.common.table import Column, Table

TABLE = Table(
    "key",
    "",
    "",
    (Column("method"), Column("updates to the target", "{:.0f}"), Column("largest gap", "{:.2f}")),
    [("UnitizedBatchNorm", 12, 0.125), ("GroupNorm", None, 0.5)],
)


@pytest.mark.parametrize(("width", "lines"), [(60, 1), (44, 3)])
def test_headings_are_broken_where_it_is_narrow_and_cells_are_not(width, lines):
    Console(file=(output := io.StringIO()), width=width).print(TABLE)
    heading, _, body = output.getvalue().partition("─")
    assert len([line for line in heading.splitlines() if line.strip()]) == lines
    rows = [line.split() for line in body.splitlines() if line.strip(" ─")]
    assert rows == [["UnitizedBatchNorm", "12", "0.12"], ["GroupNorm", "-", "0.50"]]
    assert all(word in heading for word in ("method", "target", "gap"))


def test_cells_are_folded_where_there_is_no_room_at_all():
    Console(file=(output := io.StringIO()), width=30).print(TABLE)
    text = "".join(output.getvalue().split())
    assert "0.12" in text
    assert "0.50" in text
