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


WIDE = Table(
    "key",
    "a title",
    "a caption",
    (Column("method"), *(Column(f"measure {i}", "{:.4f}") for i in range(12))),
    [("卷积 [b]", *(i + 0.1234 for i in range(12))), ("b", *[123456.7891] * 12)],
)


@pytest.mark.parametrize("width", [10, 30, 80, 120, 400])
@pytest.mark.parametrize("table", [TABLE, WIDE])
def test_no_figure_is_lost_at_any_width(table, width):
    Console(file=(output := io.StringIO()), width=width).print(table)
    text = "".join(output.getvalue().split())
    for row in table.cells():
        for cell in row:
            assert cell.replace(" ", "") in text
    assert "…" not in text


def test_a_narrow_terminal_gets_a_block_of_each_row():
    Console(file=(output := io.StringIO()), width=80).print(WIDE)
    first, second = output.getvalue().split("\n\nmethod: ")[1:]
    assert first.splitlines()[:2] == ["卷积 [b]", "  measure 0: 0.1234"]
    assert len(first.splitlines()) == len(WIDE.columns)
    assert second.splitlines()[12] == "  measure 11: 123456.7891"


def test_a_text_is_broken_between_its_words():
    rows = [("a", "some words that are many"), ("b", "few")]
    table = Table("key", "", "", (Column("name"), Column("what")), rows)
    Console(file=(output := io.StringIO()), width=24).print(table)
    text = output.getvalue()
    assert "many" in text
    assert "what:" not in text
    assert max(map(len, text.splitlines())) <= 24
