"""What every command line does with errors and interruptions."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from experiments.common import cli
from experiments.common.cli import run_cli
from experiments.common.console import CommandConsole
from experiments.common.errors import Preempted
from experiments.common.table import Column, Table, mean_std_column


@dataclasses.dataclass(frozen=True)
class Options:
    """Nothing to choose."""


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (None, 0, ""),
        (Preempted(), 0, ""),
        (Preempted(143), 143, ""),
        (
            OSError(28, "No space left on device", "a/b"),
            1,
            "error: No space left on device (file a/b): make room.\n",
        ),
        (OSError(30, "Read-only file system", "a"), 1, "make the disk writable.\n"),
        (
            ModuleNotFoundError("No module named 'PIL'", name="PIL.Image"),
            1,
            "error: PIL is not installed. In the checkout: uv pip install --group data.\n",
        ),
        (
            KeyError("x"),
            1,
            "error: KeyError: 'x'. This should not happen: --debug shows where it did.\n",
        ),
        (ValueError("`x` (=1) must be 2."), 1, "error: `x` (=1) must be 2.\n"),
        (KeyboardInterrupt(), 130, "interrupted; what had been saved is complete\n"),
    ],
)
def test_status_and_message(raised, status, message, capsys):
    def run(options):
        if raised is not None:
            raise raised

    assert run_cli("prog", Options, [], run) == status
    assert capsys.readouterr().err.endswith(message)
    assert run_cli("prog", Options, ["--debug"], run) == status
    assert ("Traceback" in capsys.readouterr().err) == (status == 1)


def test_groups_are_those_of_the_project():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    groups = tomllib.loads(text)["dependency-groups"]
    distributions = {
        "sklearn": "scikit-learn",
        "cv2": "opencv-python-headless",
        "PIL": "pillow",
        "ott": "ott-jax",
        "ot": "pot",
        "orbax": "orbax-checkpoint",
        "tensorflow": "tensorflow-cpu",
        "tensorflow_datasets": "tensorflow-datasets",
    }
    for group, names in cli._GROUPS.items():
        listed = {re.match(r"[\w-]+", e)[0] for e in groups[group] if isinstance(e, str)}
        assert {distributions.get(name, name) for name in names} <= listed


@dataclasses.dataclass(frozen=True)
class Checked:
    """One that is checked."""

    x: int = 2

    def __post_init__(self):
        if self.x != 2:
            raise ValueError(f"`x` (={self.x}) must be 2.")


def test_a_wrong_option_is_a_matter_of_usage(capsys):
    with pytest.raises(SystemExit, match="2"):
        run_cli("prog", Checked, ["--x", "1"], print)
    assert capsys.readouterr().err == "error: `x` (=1) must be 2. Options: prog --help.\n"


@pytest.mark.parametrize("unicode", [False, True])
@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--x", "one"], "--x (='one') must be a whole number."),
        (["--x"], "Missing value for argument '--x'. Expected 1 values."),
        (["--xx", "3"], "Unrecognized options: --xx, 3. Perhaps you meant --x."),
        (["y" * 300], f"Unrecognized options: {'y' * 300}."),
    ],
)
def test_what_cannot_be_parsed_is_one_line(words, error, unicode, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("tyro._fmtlib._FORCE_UTF8_BOXES", unicode)
    with pytest.raises(SystemExit, match="2"):
        run_cli("prog", Checked, words, print)
    assert capsys.readouterr().err == f"error: {error} Options: prog --help.\n"
    assert os.environ["COLUMNS"] == "40"


def test_one_of_several_commands_has_its_help(capsys):
    either = (
        Annotated[Checked, tyro.conf.subcommand("one")]
        | Annotated[Options, tyro.conf.subcommand("two")]
    )
    for words, expected in {("--help",): "{one,two}", ("one", "--help-all"): "--x INT"}.items():
        with pytest.raises(SystemExit) as ended:
            run_cli("prog", either, words, print)
        assert not ended.value.code
        assert expected in capsys.readouterr().out


TABLE = Table(
    "key",
    "",
    "what they reached",
    (Column("norm"), mean_std_column("accuracy, %", 1, 100)),
    [("bn", (0.99125, 0.002)), ("gn", None)],
)


def print_tables(config):
    console = CommandConsole()
    console.print("a message")
    for _ in range(2):
        console.print(TABLE)


def test_tables_in_the_format_that_is_wanted(capsys):
    assert run_cli("prog", Options, [], print_tables) == 0
    plain = capsys.readouterr()
    assert "99.1 ± 0.2" in plain.out
    assert "a message" in plain.out
    assert run_cli("prog", Options, ["--format", "json"], print_tables) == 0
    found = capsys.readouterr()
    assert [json.loads(line)["rows"] for line in found.out.splitlines()] == [
        [
            {"norm": "bn", "accuracy, % (mean)": 99.125, "accuracy, % (std)": 0.2},
            {"norm": "gn", "accuracy, % (mean)": None, "accuracy, % (std)": None},
        ]
    ] * 2
    assert found.err == "a message\n"
    assert run_cli("prog", Options, ["--format=csv", "--quiet"], print_tables) == 0
    found = capsys.readouterr()
    block = 'norm,"accuracy, % (mean)","accuracy, % (std)"\nbn,99.125,0.2\ngn,,\n'
    assert found.out == f"{block}\n{block}"
    assert found.err == ""


def test_an_unknown_format_is_told_the_others(capsys):
    assert run_cli("prog", Options, ["--format", "jsn"], print) == 2
    assert capsys.readouterr().err == (
        "error: `format` (='jsn') is unknown; choose from table, json, csv. Did you mean json?\n"
    )


def test_quiet_and_version(capsys):
    assert run_cli("prog", Options, ["--quiet"], print_tables) == 0
    assert run_cli("prog", Options, ["--version"], print_tables) == 0
    assert capsys.readouterr() == (f"{cli.version_text()}\n", "")


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
    assert run_cli("prog", Folders, words, print) == 2
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


def test_names_that_are_no_text_are_refused_and_shown(tmp_path, monkeypatch):
    program = (
        "import sys; sys.argv[1:] = [b'--out', b'a\\xff'.decode(errors='surrogateescape')]\n"
        "from tests.experiments.common.cli_test import Folders, run_cli\n"
        "sys.exit(run_cli('prog', Folders, None, print))"
    ).replace("[b'--out', ", "['--out', ")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, cwd=Path(__file__).parents[3]
    )
    assert done.returncode == 2
    assert b"`out` (='a\\\\udcff') must be UTF-8 text" in done.stderr


def test_what_the_encoding_lacks_is_escaped():
    program = (
        "from tests.experiments.common.cli_test import Options, run_cli\n"
        r"run_cli('prog', Options, [], lambda c: print('\u732b \udcff'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stdout) == (0, b"\\u732b \\udcff\n"), done.stderr


def test_completion_is_of_one_word(capsys):
    with pytest.raises(SystemExit) as ended:
        run_cli("python -m experiments x", Folders, ["--tyro-print-completion", "bash"], print)
    assert not ended.value.code
    assert "\ncomplete -F _tyro_experiments_x experiments-x\n" in capsys.readouterr().out
