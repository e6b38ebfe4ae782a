"""What a command is doing: a line that moves on a terminal, a line every now and then in a log."""

import threading
import time
from typing import NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column

from experiments.common.files import Closing


class Status(NamedTuple):
    """How far one run is, as of the last update whose numbers are there.

    Attributes:
        run: Its name.
        epoch: Of the update, from 1.
        epochs: Number of epochs.
        step: The update, from 1.
        steps: Number of updates.
        images_per_second: Since the last evaluation.
        loss: Of its batch.
        accuracy: Of its batch, from 0 to 1.
    """

    run: str
    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float
    loss: float
    accuracy: float

    def __str__(self) -> str:
        """Return one line.

        Example:
            >>> print(Status("bn, seed 0", 2, 9, 33, 99, 2468.1, 0.51234, 0.875))
            bn, seed 0: epoch 2 of 9, update 33 of 99, 2,468 images/s, loss 0.5123, accuracy 87.5 %
        """
        return (
            f"{self.run}: epoch {self.epoch} of {self.epochs}, update {self.step:,} of "
            f"{self.steps:,}, {self.images_per_second:,.0f} images/s, loss {self.loss:.4g}, "
            f"accuracy {self.accuracy:.1%}".replace("%", " %")
        )


def clock(seconds: float) -> str:
    """Return a time as people read it.

    Example:
        >>> clock(83.4), clock(3 * 3600 + 62)
        ('1:23', '3:01:02')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress(Closing):
    """Tells what a command does, while it is entered.

    On a terminal one line at the bottom moves every second. Elsewhere each phase is a line, and
    every ``log_seconds`` another one says how far it is, also while a network is being compiled.

    Args:
        console: Where it is told; nothing is, if it is quiet.
        log_seconds: Seconds between two lines, where there is no terminal.
    """

    def __init__(self, console: Console, log_seconds: float = 30.0) -> None:
        """Tell nothing yet."""
        self._console, self._log_seconds = console, log_seconds
        self._bar: Bar | None = None
        self._phase, self._phase_began = "", time.monotonic()
        self._status: Status | None = None
        self._doing = ""
        self._done = self._total = self._found = 0
        self._training_began = 0.0
        self._finished = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin to tell."""
        if self._console.quiet:
            return self
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            columns = (SpinnerColumn(), self._text_column(), TimeElapsedColumn())
            # Standard output is left alone: tables in JSON or CSV go there.
            self._bar = Bar(
                *columns,
                console=self._console,
                transient=True,
                refresh_per_second=1,
                redirect_stdout=False,
            )
            self._task = self._bar.add_task("Starting", total=None)
            self._bar.start()
        else:
            self._thread = threading.Thread(target=self._tell_regularly, daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """Take the moving line away."""
        self._finished.set()
        if self._bar is not None:
            self._bar.stop()
        if self._thread is not None:
            self._thread.join()

    @staticmethod
    def _text_column() -> TextColumn:
        # A narrow terminal breaks the line; nothing of it is cut.
        return TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=False))

    def phase(self, what: str) -> None:
        """Begin something that takes a while, such as "Compiling 2 of 4"."""
        self._phase, self._phase_began = what, time.monotonic()
        self._status, self._doing = None, ""
        if self._bar is not None:
            self._bar.columns = (SpinnerColumn(), self._text_column(), TimeElapsedColumn())
            self._bar.reset(self._task, description=what, total=None)
            self._bar.refresh()
        elif self._thread is not None:
            self._console.print(f"{what} ...", soft_wrap=True)

    def begin_training(self, total: int) -> None:
        """Begin to count updates.

        Args:
            total: Updates of all runs together.
        """
        self._done, self._found, self._total = 0, 0, total
        self._training_began = time.monotonic()
        self._phase = "Training"
        if self._bar is not None:
            self._bar.columns = (self._text_column(), BarColumn(20))
            self._bar.reset(self._task, description=self._phase, total=total)

    def found(self, updates: int) -> None:
        """Count updates that a resumed run had done before."""
        self._found += updates
        self._count(updates)

    def show(self, status: Status, updates: int) -> None:
        """Count updates, and show what the last of them said."""
        self._status, self._doing = status, ""
        self._count(updates)

    def doing(self, what: str) -> None:
        """Say what is done between updates, such as "evaluating"."""
        self._doing = what
        self._count(0)

    def _count(self, updates: int) -> None:
        self._done += updates
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=self._line())

    def seconds_left(self) -> float | None:
        """Return how long the rest takes, at the pace so far; None before there is one."""
        here = self._done - self._found
        if not here or self._done >= self._total:
            return None
        pace = (time.monotonic() - self._training_began) / here
        return pace * (self._total - self._done)

    def _line(self) -> str:
        if self._status is None:
            return self._phase
        left = self.seconds_left()
        line = f"{self._status}" + ("" if left is None else f", {clock(left)} left")
        return line + (f"; {self._doing}" if self._doing else "")

    def _tell_regularly(self) -> None:
        while not self._finished.wait(self._log_seconds):
            line = self._line()
            if self._status is None:
                line += f": {clock(time.monotonic() - self._phase_began)} so far"
            try:
                self._console.print(line, soft_wrap=True, highlight=False, markup=False)
            except (OSError, ValueError):  # Nobody reads; whoever prints next says so.
                return


SILENT = Progress(Console(quiet=True))
