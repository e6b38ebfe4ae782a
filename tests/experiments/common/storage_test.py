"""Full and read-only disks: told before training, or at the save; what was saved stays."""

import re
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from experiments import train
from experiments.common.storage import StorageError, check_room, needed_bytes, storage_errors
from experiments.training import checkpoint
from experiments.training.record import Recorder
from experiments.training.run import run_folder
from tests.experiments.common import storage
from tests.experiments.jobs import differences, template, train_here


def run_cli(folder, *arguments):
    options = "--norms bn --seeds 0 --model.blocks 1 --model.widths 4 --optim.epochs 2"
    options += " --evals-per-epoch 1 --optim.batch-size 128 --probe.every 0 --num-devices 1"
    return train.main([*options.split(), "--run-dir", str(folder), *arguments])


def test_not_enough_room(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=12_300_000))
    check_room(tmp_path, 12_000_000)
    message = r"needs about 45.7 MB in .*, but only 12.3 MB are free. Make room, give .*keep-check"
    with pytest.raises(StorageError, match=message):
        check_room(tmp_path, 45_678_900)
    assert list(tmp_path.iterdir()) == []


def test_the_estimate_is_not_below_what_is_written(tmp_path):
    """In blocks, as the disk counts."""
    run = train_here(tmp_path)
    written = 512 * sum(path.stat().st_blocks for path in tmp_path.rglob("*"))
    estimate = needed_bytes([run.state], seeds=1, keep=2, updates=33)
    assert written <= estimate <= 5 * written


def test_only_errors_of_the_disk_are_taken_for_such():
    with pytest.raises(FileNotFoundError), storage_errors("what"):
        Path("/no/such/file").read_text()


def test_full_before_training(tmp_path, capsys):
    with storage.small_disk(tmp_path / "disk", "256k") as disk:
        assert run_cli(disk / "run") == 1
        error = capsys.readouterr().err
        assert re.match(
            r"error: the run needs about \d.\d MB in .*/run, but only 0.\d MB are", error
        )
        storage.fill(disk)
        assert run_cli(disk / "other") == 1
        error = capsys.readouterr().err
        assert "error: run folder" in error
        assert "cannot be written: No space left on device" in error
        assert error.count("\n") == 1


def test_read_only_before_training(tmp_path, capsys):
    with storage.small_disk(tmp_path / "disk", "1m") as disk:
        (disk / "run").mkdir()
        storage.make_read_only(disk)
        for folder, arguments in [(disk / "new", []), (disk / "run", ["--resume", "auto"])]:
            assert run_cli(folder, *arguments) == 1
            error = capsys.readouterr().err
            assert error.startswith(f"error: run folder {folder} cannot be ")
            assert "Read-only file system" in error
            assert "Give a --run-dir that can be written." in error
            assert error.count("\n") == 1


def train_full(folder: Path, disk: Path, monkeypatch, kind: str, step: int) -> Path:
    """Trains, and fills the disk when the row of ``step`` is there."""
    write = Recorder.write
    filler = []

    def write_and_fill(self, name, rows):
        write(self, name, rows)
        if name == kind and rows[-1]["step"] == step:
            while list(disk.glob("**/checkpoints/*-tmp*")):
                time.sleep(0.01)  # The save before still needs its room.
            filler.append(storage.fill(disk))

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "write", write_and_fill)
        train_here(folder)
    return filler[0]


@pytest.mark.parametrize("kind", [pytest.param("eval", marks=pytest.mark.slow), "train"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_full_while_training(undisturbed, tmp_path, monkeypatch, kind):
    """At a save (after the last evaluation of an epoch), or at the next row."""
    with storage.small_disk(tmp_path / "disk", "2m") as disk:
        folder = disk / "run"
        # A row or a checkpoint, whichever comes first: checkpoints are written in the background.
        with pytest.raises((checkpoint.CheckpointError, OSError), match="No space left on device"):
            train_full(folder, disk, monkeypatch, kind, 22)
        checkpoints = run_folder(folder, "ubn", 0) / "checkpoints"
        assert checkpoint.restore(checkpoints, template()).step == 11
        (disk / "filler").unlink()
        train_here(folder)
        assert differences(undisturbed, folder) == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    train_here(folder)
    return folder


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("size", [5000, pytest.param(9000, marks=pytest.mark.slow)])
def test_full_while_training_from_the_command_line(tmp_path, capfd, size):
    """Wherever the tests run: no file may be longer. The rows reach it first, or a checkpoint."""
    folder, before = tmp_path / "run", set(threading.enumerate())
    with storage.longest_file(size):
        assert run_cli(folder) == 1
    # Threads of the failed save may still write its traceback, for which Python 3.11 parses code;
    # so does the next command line, and until 3.11.8 not both at once (CPython issue 106905).
    for thread in set(threading.enumerate()) - before:
        with suppress(Exception):  # Orbax's threads raise here what they met.
            thread.join(1)
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert "File too large" in error
    assert "allow longer files (ulimit -f), then continue with --resume auto." in error
    assert error.count("\n") == 1
    assert run_cli(folder, "--resume", "auto") == 0
    assert (folder / "summary.json").exists()
