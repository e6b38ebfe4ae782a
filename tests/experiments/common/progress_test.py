"""What is told while something takes long: on a terminal, in a log file, and to nobody."""

import io
import threading

import pytest
from rich.console import Console

from experiments.common.progress import Progress, Status

STATUS = Status("bn, seed 0", 2, 9, 33, 99, 2468.1, 0.51234, 0.875)


class Lines(io.StringIO):
    """A log file that says when it has so many lines."""

    def __init__(self, count):
        super().__init__()
        self.count, self.full = count, threading.Event()

    def write(self, text):
        super().write(text)
        if self.getvalue().count("\n") >= self.count:
            self.full.set()
        return len(text)


def test_a_log_has_lines_and_no_bar():
    file = Lines(3)
    with Progress(Console(file=file, width=20), log_seconds=0.01) as progress:
        progress.phase("Compiling 1 of 2: bn")
        assert file.full.wait(10)
    first, *others = file.getvalue().splitlines()
    assert first == "Compiling 1 of 2: bn ..."
    assert set(others) == {"Compiling 1 of 2: bn: 0:00 so far"}
    assert "\r" not in file.getvalue()
    assert "\x1b" not in file.getvalue()


def test_a_log_says_how_far_training_is():
    file = Lines(3)
    with Progress(Console(file=file, width=20), log_seconds=0.01) as progress:
        progress.phase("Compiling")
        progress.begin_training(200)
        progress.found(100)
        progress.show(STATUS, 33)
        assert file.full.wait(10)
    line = file.getvalue().splitlines()[-1]
    assert line.startswith(f"{STATUS}, 0:0")
    assert line.endswith(" left")


def test_what_was_found_done_says_nothing_of_the_pace():
    progress = Progress(Console(quiet=True))
    progress.begin_training(200)
    progress.found(100)
    assert progress.seconds_left() is None
    progress.show(STATUS, 50)
    half = progress.seconds_left()
    assert half is not None
    progress.show(STATUS, 50)
    assert progress.seconds_left() is None


def test_a_narrow_terminal_loses_nothing():
    file = io.StringIO()
    with Progress(Console(file=file, width=40, force_terminal=True)) as progress:
        progress.phase("Loading [b]digits")
        progress.begin_training(99)
        progress.show(STATUS, 33)
        progress.doing("evaluating")
    text = file.getvalue()
    assert "Loading [b]digits" in text
    assert "evaluating" in text
    assert "…" not in text


def test_standard_output_stays_that_of_tables(capsys):
    with Progress(Console(file=io.StringIO(), force_terminal=True)) as progress:
        progress.phase("Loading")
        print("a table in JSON")
    assert capsys.readouterr().out == "a table in JSON\n"


def test_a_log_that_is_closed_is_not_the_progress_threads_trouble():
    file = io.StringIO()
    with Progress(Console(file=file), log_seconds=0.01) as progress:
        file.close()
        progress._thread.join(10)
        assert not progress._thread.is_alive()
    with pytest.raises(ValueError, match="closed file"):
        print("", file=file)
