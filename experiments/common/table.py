"""A table of numbers, and the ways to write it: terminal, Markdown, JSON, CSV, cells of a page."""

import csv
import io
import json
import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from experiments.common import files

Cell = Any  # None, a number, a string, or a tuple: as its column says.


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: Its heading.
        style: How a cell is written, as a format of its numbers, "{:.2f}": of one number, or of the
            entries of a tuple, as in "{:.2f} ± {:.2f}". Empty: a text. A text may stand in place of
            numbers.
        parts: What the entries of a tuple are; each is a column of its own in CSV.
        factor: What numbers are multiplied with, to be in the unit of the heading.
    """

    name: str
    style: str = ""
    parts: tuple[str, ...] = ()
    factor: float = 1.0

    def text(self, cell: Cell) -> str:
        """Return a cell as people read it; "-" stands for what there is not.

        Example:
            >>> mean_std_column("accuracy, %", 1, 100).text((0.99, 0.002))
            '99.0 ± 0.2'
        """
        if not self.style or isinstance(cell, str):
            return "-" if _missing(cell) else str(cell)
        entries: Sequence[Any] = cell if isinstance(cell, tuple) else (cell,)
        if not entries or _missing(entries[0]):
            return "-"
        whole = len(entries) == max(1, len(self.parts)) and not any(map(_missing, entries))
        if not whole:
            # A mean without a standard deviation is still a mean; half an interval is nothing.
            first = re.split(r" ± | \(", self.style)[0]
            return first.format(self.factor * entries[0]) if first != self.style else "-"
        return self.style.format(*(self.factor * float(entry) for entry in entries))


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
            yield [column.text(c) for c, column in zip(row, self.columns, strict=True)]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield the table for the terminal; no figure is cut.

        Where it is narrow, headings are broken; where that is not enough, each row is a block.
        """
        del console
        rows = list(self.cells())
        names = [column.name for column in self.columns]
        widths = [max(map(cell_len, texts)) for texts in zip(*rows, strict=True)]
        widths = widths or [0] * len(names)
        least = [
            max(width, *map(cell_len, name.split()), 1)
            for name, width in zip(names, widths, strict=True)
        ]
        for i, column in enumerate(self.columns[1:], 1):
            if not column.style:  # A text may be broken between its words.
                words = " ".join([names[i], *(cells[i] for cells in rows)]).split()
                least[i] = max(map(cell_len, words), default=1)
        room = options.max_width - 3 * len(names)
        if sum(least) > room:
            yield from self._blocks(rows)
            return
        if sum(map(max, widths, map(cell_len, names))) > room:
            names = [
                "\n".join(textwrap.wrap(name, width)) if column.style else name
                for name, width, column in zip(names, least, self.columns, strict=True)
            ]
        rich = RichTable(
            title=self.title, caption=self.caption or None, box=box.SIMPLE, padding=(0, 1)
        )
        for column, name, width in zip(self.columns, names, least, strict=True):
            justify: Literal["left", "right"] = "right" if column.style else "left"
            rich.add_column(Text(name), justify=justify, overflow="fold", min_width=width)
        for cells in rows:
            rich.add_row(*map(Text, cells))
        yield rich

    def _blocks(self, rows: list[list[str]]) -> Iterator[RenderableType]:
        """Yield a block of each row: its heading, and a line for each of the other columns."""
        head, *names = (column.name for column in self.columns)
        if self.title:
            yield Text(self.title, style="italic")
        for first, *others in rows:
            yield Text(f"\n{head}: {first}" if head else f"\n{first}", style="bold")
            for name, cell in zip(names, others, strict=True):
                yield Text(f"  {name}: {cell}")
        yield Text(f"\n{self.caption}\n" if self.caption else "", style="dim italic")


def select_columns(table: Table, columns: Sequence[str]) -> Table:
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


def mean_std_column(name: str, digits: int, factor: float = 1.0) -> Column:
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
        >>> columns = (Column("norm"), mean_std_column("accuracy, %", 1, 100))
        >>> table = Table("a", "", "", columns, rows)
        >>> print(to_markdown(table), end="")
        | norm | accuracy, % |
        |---|---|
        | bn | 99.0 ± 0.2 |
        | gn | 98.0 |
    """
    lines = [[column.name for column in table.columns], ["---"] * len(table.columns)]
    rows = [*lines, *table.cells()]
    rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    text = ["| " + " | ".join(row) + " |" for row in rows]
    text[1] = text[1].replace(" ", "")
    return "\n".join(text) + "\n"


def to_csv(table: Table) -> str:
    """Return the table as CSV, with all digits; what there is not is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row in _flat(table):
        writer.writerow("" if entry is None else entry for entry in row)
    return buffer.getvalue()


def to_json(table: Table) -> str:
    """Return the table as one line of JSON, with all digits; what there is not is null.

    Example:
        >>> columns = (Column("norm"), mean_std_column("accuracy, %", 1, 100))
        >>> print(to_json(Table("a", "", "", columns, [("bn", (0.99, 0.002))])), end="")
        {"table": "a", "rows": [{"norm": "bn", "accuracy, % (mean)": 99.0, "accuracy, % (std)": \
0.2}]}
    """
    names, *rows = _flat(table)
    named = [dict(zip(names, row, strict=True)) for row in rows]
    about = {
        name: text for name, text in [("title", table.title), ("caption", table.caption)] if text
    }
    text = json.dumps(files.to_plain({"table": table.key, **about, "rows": named}), allow_nan=False)
    return text + "\n"


def _flat(table: Table) -> Iterator[list[Any]]:
    """Yield the names of the columns, one for each part, and the rows in the same order."""
    yield [
        f"{column.name} ({part})" if part else column.name
        for column in table.columns
        for part in column.parts or ("",)
    ]
    for row in table.rows:
        flat: list[Any] = []
        for cell, column in zip(row, table.columns, strict=True):
            entries = list(cell) if isinstance(cell, tuple) else [cell]
            flat += [None if _missing(x) else _in_unit(x, column) for x in entries]
            flat += [None] * (len(column.parts or ("",)) - len(entries))
        yield flat


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _in_unit(value: Any, column: Column) -> Any:
    """Return a number in the unit of its heading, with the digits that multiplication leaves."""
    if column.factor == 1 or not isinstance(value, int | float):
        return value
    return float(f"{column.factor * value:.15g}")
