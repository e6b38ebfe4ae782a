"""Where commands print: tables as the user wants them, and messages that stay out of their way."""

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, get_args

from rich.console import Console

from experiments.common.table import Table, to_csv, to_json

Format = Literal["table", "json", "csv"]
FORMATS: tuple[str, ...] = get_args(Format)
WIDE = 10_000  # Columns of a pipe or a file: no line is broken.


class Output(NamedTuple):
    """What every command is told about its output.

    Attributes:
        format: How tables are written.
        quiet: Whether to print nothing but tables in JSON or CSV, and errors.
    """

    format: str = "table"
    quiet: bool = False


_PLAIN = Output()
_OUTPUT: ContextVar[Output] = ContextVar("output", default=_PLAIN)


@contextlib.contextmanager
def output(chosen: Output) -> Iterator[None]:
    """Have every console that is made meanwhile print as ``chosen``."""
    token = _OUTPUT.set(chosen)
    try:
        yield
    finally:
        _OUTPUT.reset(token)


class CommandConsole(Console):
    """A console that writes tables as JSON or CSV where that is wanted, one after the other.

    Messages then go to standard error, so that a program can read the output.
    """

    def __init__(self) -> None:
        """Take up how the command is to print."""
        self._format, quiet = _OUTPUT.get()
        self._between = ""  # Blank lines keep tables in CSV apart.
        stderr = self._format != "table"
        terminal = (sys.stderr if stderr else sys.stdout).isatty()
        # ``COLUMNS`` is an explicit wish, which rich looks at itself.
        width = None if terminal or "COLUMNS" in os.environ else WIDE
        super().__init__(stderr=stderr, quiet=quiet, width=width)

    @property
    def for_programs(self) -> bool:
        """Whether tables are JSON or CSV."""
        return self._format != "table"

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as ``rich`` does, but for a table."""
        if self._format == "table" or len(objects) != 1 or not isinstance(objects[0], Table):
            super().print(*objects, **options)
            return
        write = {"json": to_json, "csv": to_csv}[self._format]
        sys.stdout.write(self._between + write(objects[0]))
        self._between = "\n" if self._format == "csv" else ""
        sys.stdout.flush()
