"""A run that is stopped and resumed, wherever, ends like one that was not: bit by bit."""

import dataclasses
import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from experiments.common.errors import Preempted
from experiments.common.files import read_rows
from experiments.config.difference import differences as config_differences
from experiments.config.experiment import TrainConfig, to_dict
from experiments.training import checkpoint, loop
from experiments.training.preemption import Preemption
from experiments.training.probing import RunProbe
from experiments.training.record import Recorder
from experiments.training.run import run_folder, start
from tests.experiments.common.storage import fail_to_write_the_probes_rows
from tests.experiments.jobs import (
    CONFIG,
    DATASET,
    UPDATES,
    StopAfter,
    differences,
    program,
    template,
    train_here,
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert train_here(folder).step == UPDATES
    return folder


def test_the_comparison_sees_a_difference(undisturbed, tmp_path):
    folder = Path(shutil.copytree(undisturbed, tmp_path / "copy"))
    assert differences(undisturbed, folder) == []
    run = run_folder(folder, "ubn", 0)
    lines = (run / "train.jsonl").read_text().splitlines(keepends=True)
    changed = lines[7].replace('"step": 8, "epoch": 1', '"step": 7, "epoch": 1')
    (run / "train.jsonl").write_text("".join([*lines[:7], changed, *lines[8:]]))
    (run / "ics.jsonl").write_text((run / "ics.jsonl").read_text().replace("lag", "log", 1))
    (events,) = (run / "tensorboard").iterdir()
    shutil.copy(events, events.with_name(events.name + "2"))
    with checkpoint.Checkpoints(run / "checkpoints") as checkpoints:
        state = checkpoint.restore(run / "checkpoints", template()).state
        checkpoints.save(checkpoint.Checkpoint(state.replace(step=state.step + 1)))
    text = "\n".join(differences(undisturbed, folder))
    for expected in (
        "step 7 is 2 times in train.jsonl",
        "line 8 of train.jsonl: {'step': 7",
        "line 1 of ics.jsonl: ",
        "train/loss of step 3 is there again",
        " differs by up to 1",
    ):
        assert expected in text


# Of 6 + 3 + 5 + 3 questions per epoch (3 batches are evaluated): in the middle of a stretch, at
# its end, in an evaluation, and every 4th, which is somewhere else each time.
@pytest.mark.parametrize("stops", [[3], [7], [8], [1, 16, 18], [4] * 20])
def test_stopped_and_resumed(undisturbed, tmp_path, stops):
    saved = []
    for calls in stops:
        try:
            train_here(tmp_path, StopAfter(calls))
        except Preempted:
            saved.append(checkpoint.saved_steps(run_folder(tmp_path, "ubn", 0) / "checkpoints")[-1])
    assert saved == sorted(saved)
    messages = []
    run = train_here(tmp_path, messages=messages)
    assert messages == [f"ubn, seed 0: goes on after update {saved[-1]}"]
    assert differences(undisturbed, tmp_path) == []
    assert len(run.step_ms) == 6
    # Times, too, are those of all the updates.
    rows = read_rows(run.folder / "eval.jsonl")
    sizes = [6, 5] * 3
    total = sum(row["ms_per_step"] * size for row, size in zip(rows, sizes, strict=True)) / 1e3
    assert run.train_seconds == pytest.approx(total)


def test_the_measurement_right_before_a_stop(undisturbed, tmp_path):
    with pytest.raises(Preempted):
        train_here(tmp_path, StopAfter(6))  # Before update 6; every 5th is measured.
    run = run_folder(tmp_path, "ubn", 0)
    rows = read_rows(run / "ics.jsonl")
    assert {row["step"] for row in rows} == {5}
    messages = []
    train_here(tmp_path, messages=messages)
    assert messages == ["ubn, seed 0: goes on after update 5"]
    assert read_rows(run / "ics.jsonl")[: len(rows)] == rows
    assert differences(undisturbed, tmp_path) == []


def test_no_measurement_is_pending_in_a_checkpoint(tmp_path, monkeypatch):
    with ExitStack() as stack:
        run = start(CONFIG, program(), DATASET, 0, tmp_path, stack)
        with monkeypatch.context() as patch:
            patch.setattr(RunProbe, "flush", lambda probe: None)
            loop.train_stretch(run, 0, 6, loop.Watch(Preemption()))
        assert not (run.folder / "ics.jsonl").exists()
        run.save()
        run.checkpoints.wait()
        found = checkpoint.restore(run.folder / "checkpoints", template())
    rows = run.folder / "ics.jsonl"
    assert {row["step"] for row in read_rows(rows)} == {5}
    assert found.records["ics.jsonl"] == rows.stat().st_size


def test_rows_of_the_probe_that_cannot_be_written(undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fail_to_write_the_probes_rows(patch, 15)
        with pytest.raises(OSError, match="No space left on device"):
            train_here(tmp_path)
    messages = []
    train_here(tmp_path, messages=messages)
    assert messages == ["ubn, seed 0: goes on after update 11"]
    assert differences(undisturbed, tmp_path) == []


def test_finished_runs_are_not_touched(undisturbed, tmp_path):
    folder = Path(shutil.copytree(undisturbed, tmp_path / "copy"))
    files = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert train_here(folder).step == UPDATES
    for path, content in files.items():
        assert path.read_bytes() == content, path


def crash(monkeypatch, at: int):
    """Lets training end without warning, once ``at`` updates are recorded."""
    write = Recorder.write

    def write_and_crash(self, kind, rows):
        write(self, kind, rows)
        if rows[-1]["step"] >= at:
            raise KeyError("crash")

    monkeypatch.setattr(Recorder, "write", write_and_crash)


def test_rows_after_the_checkpoint_are_written_once(undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        crash(patch, 28)
        with pytest.raises(KeyError, match="crash"):
            train_here(tmp_path)
    run = run_folder(tmp_path, "ubn", 0)
    assert len(read_rows(run / "train.jsonl")) == 28
    assert checkpoint.saved_steps(run / "checkpoints") == [11, 22]
    with (run / "train.jsonl").open("a") as file:
        file.write('{"step": 29, "los')  # As a process that is killed leaves it.
    (run / "other.jsonl").write_text("{}\n")
    messages = []
    train_here(tmp_path, messages=messages)
    assert messages == ["ubn, seed 0: goes on after update 22"]
    assert not (run / "other.jsonl").exists()
    assert differences(undisturbed, tmp_path) == []


def test_a_damaged_checkpoint_and_the_one_before(undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        crash(patch, 28)
        with pytest.raises(KeyError, match="crash"):
            train_here(tmp_path)
    folder = run_folder(tmp_path, "ubn", 0) / "checkpoints"
    (folder / "22" / "about" / "metadata").unlink()
    messages = []
    train_here(tmp_path, messages=messages)
    assert "the checkpoint of update 22," in messages[0]
    assert messages[0].endswith(f"It was put aside as {folder / 'damaged-22'}.")
    assert messages[1] == "ubn, seed 0: goes on after update 11"
    assert differences(undisturbed, tmp_path) == []


def test_records_that_end_too_early(undisturbed, tmp_path):
    folder = Path(shutil.copytree(undisturbed, tmp_path / "copy"))
    rows = run_folder(folder, "ubn", 0) / "eval.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:4]))
    messages = []
    train_here(folder, messages=messages)
    assert "eval.jsonl in " in messages[0]
    assert "ended before the checkpoint of update 33: what is missing would not" in messages[0]
    assert differences(undisturbed, folder) == []


def test_records_that_were_changed(undisturbed, tmp_path):
    folder = Path(shutil.copytree(undisturbed, tmp_path / "copy"))
    rows = run_folder(folder, "ubn", 0) / "train.jsonl"
    rows.write_text(rows.read_text().replace('"step": 5,', '"step": 6,'))
    with pytest.raises(ValueError, match=r"train.jsonl does not have one row for each of the 33"):
        train_here(folder)
    rows.write_text(rows.read_text().replace('"step": 6,', '"step": 6', 1))
    with pytest.raises(ValueError, match=r"line 5 of .*train.jsonl is not JSON .* from a copy"):
        train_here(folder)


def test_rows_without_a_checkpoint_are_not_thrown_away(undisturbed, tmp_path):
    folder = Path(shutil.copytree(undisturbed, tmp_path / "copy"))
    shutil.rmtree(run_folder(folder, "ubn", 0) / "checkpoints")
    with pytest.raises(checkpoint.CheckpointError, match="has rows of training, but no checkpoint"):
        train_here(folder)


def test_a_process_killed_before_its_first_checkpoint(undisturbed, tmp_path):
    with Recorder(run_folder(tmp_path, "ubn", 0)) as recorder:
        recorder.write_scalars(3, {"a": 1.0})
    train_here(tmp_path)
    assert differences(undisturbed, tmp_path) == []


def test_another_configuration_is_refused(undisturbed, tmp_path):
    folder = Path(shutil.copytree(undisturbed, tmp_path / "copy"))
    with pytest.raises(ValueError, match="started with another configuration") as caught:
        train_here(folder, optim=dataclasses.replace(CONFIG.optim, learning_rate=0.2, warmup=0.5))
    assert (
        "\n  optim.learning_rate: 0.1 before, 0.2 now\n  optim.warmup: 0.2 before, 0.5 now\n"
        in str(caught.value)
    )
    assert "Give the same options to resume it, or another --run-dir" in str(caught.value)
    # What does not change results may change.
    train_here(folder, checkpoint_every=2, keep_checkpoints=5, grace_seconds=1.0)


def test_which_options_may_change():
    before = TrainConfig(run_dir="a", resume="auto")
    now = TrainConfig(
        run_dir="b", resume="must", grace_seconds=1, checkpoint_every=9, keep_checkpoints=9
    )
    assert config_differences(json.loads(json.dumps(to_dict(before))), to_dict(now)) == []
