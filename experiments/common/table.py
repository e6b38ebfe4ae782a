"""A table of numbers, and the four ways to write it: terminal, Markdown, CSV, cells of a page."""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from rich import box
from rich.table import Table as RichTable

Cell = Any  # None, a number, a string, or a tuple: as its column says.


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: Its heading.
        style: How a cell is written, as a format of its numbers, "{:.2f}": of one number, or of the
            entries of a tuple, as in "{:.2f} ± {:.2f}". Empty: a text. A text may stand in place of
            numbers.
        parts: What the entries of a tuple are; each is a column of its own in CSV.
        factor: What numbers are multiplied with, to be written (not in CSV).
    """

    name: str
    style: str = ""
    parts: tuple[str, ...] = ()
    factor: float = 1.0


class Table(NamedTuple):
    """A table; cells hold numbers, not text, so that no digits are lost in CSV.

    Attributes:
        key: Short name: of a file, and in the pages.
        title: What it shows.
        caption: What its cells are.
        columns: The columns; the first is a heading.
        rows: One tuple of cells per row.
    """

    key: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: list[tuple[Cell, ...]]

    def cells(self) -> Iterator[list[str]]:
        """Yield the rows as people read them; "-" stands for what there is not."""
        for row in self.rows:
            yield [_text(c, column) for c, column in zip(row, self.columns, strict=True)]


def choose(table: Table, columns: Sequence[str]) -> Table:
    """Return ``table`` with some of its columns, in the order given; all if none is.

    Raises:
        ValueError: If there is no such column.
    """
    names = [column.name for column in table.columns]
    for name in columns:
        if name not in names:
            raise ValueError(f"column (={name!r}) is unknown; choose from {' | '.join(names)}.")
    kept = [names.index(name) for name in columns or names]
    rows = [tuple(row[i] for i in kept) for row in table.rows]
    return table._replace(columns=tuple(table.columns[i] for i in kept), rows=rows)


def mean_std(name: str, digits: int, factor: float = 1.0) -> Column:
    """Return a column of mean and sample standard deviation."""
    number = f"{{:.{digits}f}}"
    return Column(name, f"{number} ± {number}", ("mean", "std"), factor)


def interval(name: str, style: str, factor: float = 1.0) -> Column:
    """Return a column of two ends."""
    return Column(name, f"{style} to {style}", ("low", "high"), factor)


def to_markdown(table: Table) -> str:
    """Return the table as Markdown; numbers are not aligned, so that changes stay small.

    Example:
        >>> rows = [("bn", (0.99, 0.002)), ("gn", (0.98, None))]
        >>> table = Table("a", "", "", (Column("norm"), mean_std("accuracy, %", 1, 100)), rows)
        >>> print(to_markdown(table), end="")
        | norm | accuracy, % |
        |---|---|
        | bn | 99.0 ± 0.2 |
        | gn | 98.0 |
    """
    lines = [[column.name for column in table.columns], ["---"] * len(table.columns)]
    rows = [*lines, *table.cells()]
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    text[1] = text[1].replace(" ", "")
    return "\n".join(text) + "\n"


def to_csv(table: Table) -> str:
    """Return the table as CSV, with all digits; what there is not is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        [
            f"{column.name} ({part})" if part else column.name
            for column in table.columns
            for part in column.parts or ("",)
        ]
    )
    for row in table.rows:
        flat: list[Any] = []
        for cell, column in zip(row, table.columns, strict=True):
            entries = cell if isinstance(cell, tuple) else (cell,)
            flat += ["" if _missing(x) else x for x in entries]
            flat += [""] * (len(column.parts or ("",)) - len(entries))
        writer.writerow(flat)
    return buffer.getvalue()


def to_rich(table: Table) -> RichTable:
    """Return the table for the terminal."""
    rich = RichTable(title=table.title, caption=table.caption, box=box.SIMPLE, padding=(0, 1))
    for column in table.columns:
        justify: Literal["left", "right"] = "right" if column.style else "left"
        rich.add_column(column.name, justify=justify, overflow="fold")
    for texts, shown in zip(zip(*table.cells(), strict=True), rich.columns, strict=False):
        shown.min_width = max(len(text) for text in texts)
    for cells in table.cells():
        rich.add_row(*cells)
    return rich


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(cell: Cell, column: Column) -> str:
    if not column.style or isinstance(cell, str):
        return "-" if _missing(cell) else str(cell)
    entries: Sequence[Any] = cell if isinstance(cell, tuple) else (cell,)
    if not entries or _missing(entries[0]):
        return "-"
    whole = len(entries) == max(1, len(column.parts)) and not any(map(_missing, entries))
    if not whole:
        # A mean without a standard deviation is still a mean; half an interval is nothing.
        first = re.split(r" ± | \(", column.style)[0]
        return first.format(column.factor * entries[0]) if first != column.style else "-"
    return column.style.format(*(column.factor * float(entry) for entry in entries))
