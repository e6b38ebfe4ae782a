"""What every command line does with errors and interruptions."""

import dataclasses
import os
import subprocess
import sys

import pytest

from experiments.cli import run_cli
from experiments.preemption import Preempted


@dataclasses.dataclass(frozen=True)
class Options:
    """Nothing to choose."""


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (None, 0, ""),
        (Preempted(), 0, ""),
        (ValueError("`x` (=1) must be 2."), 1, "error: `x` (=1) must be 2.\n"),
        (KeyboardInterrupt(), 130, "interrupted; what had been saved is complete\n"),
    ],
)
def test_status_and_message(raised, status, message, capsys):
    def run(options):
        if raised is not None:
            raise raised

    assert run_cli("prog", Options, [], run) == status
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_ends_quietly_when_nobody_reads(arguments):
    program = (
        "import dataclasses, sys; from experiments.cli import run_cli\n"
        "Options = dataclasses.make_dataclass('Options', [])\n"
        f"sys.exit(run_cli('prog', Options, {arguments}, print))"
    )
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, b"")
