"""What every command line does with errors and interruptions."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.common.cli import run_cli
from experiments.common.errors import Preempted


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


@dataclasses.dataclass(frozen=True)
class Folders:
    """Files and folders."""

    out: str = "here"
    run_folders: tuple[str, ...] = ()
    json: Path | None = None
    name: str = "~"


def test_home_is_expanded_in_files_and_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = []
    words = ["--out=~/a", "--run-folders", "~/b", "c", "--json=~/d.json"]
    assert run_cli("prog", Folders, words, found.append) == 0
    home = str(tmp_path)
    expected = Folders(f"{home}/a", (f"{home}/b", "c"), Path(f"{home}/d.json"), "~")
    assert found == [expected]


@pytest.mark.parametrize(
    "words", [["--out", "gs://bucket/x"], ["--run-folders", "a", "s3://b"], ["--json", "gs://b/c"]]
)
def test_addresses_are_no_folders(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_cli("prog", Folders, words, print) == 1
    assert "must be on a file system of this machine" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_notebooks_backend_does_not_matter():
    """Commands draw into files; the backend of the shell need not be installed here."""
    for backend in ("module://matplotlib_inline.backend_inline", "unknown"):
        command = [sys.executable, "-m", "experiments", "page", "--help"]
        environment = os.environ | {"MPLBACKEND": backend}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    # A program of the user's keeps what it has.
    program = "import experiments, os; print(os.environ['MPLBACKEND'])"
    command = [sys.executable, "-c", program]
    assert subprocess.check_output(command, env=environment, text=True) == "unknown\n"


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_ends_quietly_when_nobody_reads(arguments):
    program = (
        "import dataclasses, sys; from experiments.common.cli import run_cli\n"
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
