"""Two processes with four devices each are one device."""

import functools
import json
import re
import shutil
import signal
import socket
import time
from contextlib import closing
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
import tyro

from experiments import train
from experiments.benchmarks.faults.compare import compare_runs
from experiments.common import files
from experiments.config.experiment import TrainConfig
from experiments.data import load_dataset
from experiments.training import checkpoint, distributed
from experiments.training import job as training_job
from experiments.training.program import build_program, evaluate_test
from tests.experiments.jobs import StopAfter
from tests.experiments.training.parallel import groups, job, masks, pairs, stopped, two_processes


def stop(run_dir: Path, *which: int) -> float:
    """Trains, sends SIGTERM to processes while they do, and returns how long both take to end."""
    processes = pairs.start(stopped.__name__, run_dir)
    checkpoints = run_dir / "ubn-seed0" / "checkpoints"
    while 11 not in checkpoint.saved_steps(checkpoints) and processes[0].poll() is None:
        time.sleep(0.05)
    time.sleep(1)  # In the middle of the second epoch, unless the machine is slow.
    for i in which:
        processes[i].send_signal(signal.SIGTERM)
    start = time.monotonic()
    outputs = pairs.finish(processes, 143)
    seconds = time.monotonic() - start
    assert f"everything is saved. Continue with: --run-dir {run_dir} --resume auto" in outputs[0]
    assert "everything" not in outputs[1]
    return seconds


def check_stopped(run_dir: Path, seconds: float) -> None:
    """Within the time there is, and with a checkpoint of every update that is on record."""
    assert seconds < stopped.GRACE_SECONDS
    steps = checkpoint.saved_steps(run_dir / "ubn-seed0" / "checkpoints")
    rows = files.read_rows(run_dir / "ubn-seed0" / "train.jsonl")
    assert [row["step"] for row in rows] == list(range(1, steps[-1] + 1))
    assert 11 <= steps[-1] < 33
    assert not (run_dir / "summary.json").exists()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A folder with a run that was stopped, and a copy with one byte of its checkpoint changed."""
    folder = tmp_path_factory.mktemp("two")
    seconds = stop(folder / "stopped", 1)
    shutil.copytree(folder / "stopped", folder / "damaged")
    checkpoints = folder / "damaged" / "ubn-seed0" / "checkpoints"
    newest = checkpoints / str(checkpoint.saved_steps(checkpoints)[-1])
    data = max((p for p in (newest / "state").rglob("*") if p.is_file()), key=size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    check_stopped(folder / "stopped", seconds)
    return folder


def size(path: Path) -> int:
    return path.stat().st_size


@pytest.fixture(scope="module")
def finished(interrupted):
    """Numbers and messages of both processes, and what they printed."""
    folder = interrupted
    # A run of one device, stopped after 5 of its 11 updates: the two processes go on with it.
    arguments = [*two_processes.TRAIN.split(), "--num-devices", "1"]
    with mock.patch.object(training_job, "Preemption", return_value=StopAfter(6)):
        assert train.main([*arguments, "--run-dir", str(folder / "run")]) == 143
    outputs = pairs.finish(pairs.start(two_processes.__name__, folder))
    numbers = [_arrays(folder / f"{i}.npz") for i in range(2)]
    messages = [json.loads((folder / f"{i}.json").read_text()) for i in range(2)]
    return folder, numbers, messages, outputs


def _arrays(path):
    with np.load(path) as file:
        return dict(file)


@pytest.mark.slow
def test_there_are_two_processes(finished):
    for message in finished[2]:
        assert message["processes"] == 2
        assert message["devices"] == [8, 4]


@pytest.mark.slow
@pytest.mark.parametrize("mode", two_processes.MODES)
def test_numbers_are_those_of_one_device(finished, mode):
    expected = job.one_device("ubn")
    for numbers in finished[1]:
        prefix = f"{mode} ["
        found = {n.removeprefix(f"{mode} "): v for n, v in numbers.items() if n.startswith(prefix)}
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("mode", two_processes.MODES)
def test_statistics_of_groups_of_both_processes(finished, mode):
    """Each group has a device of either process; as if all were of one, and in float64."""
    one = groups.statistics(mode)
    parts = [{name: numbers[f"groups {mode} {name}"] for name in one} for numbers in finished[1]]
    for name, expected in {**one, **groups.reference()}.items():
        found = np.concatenate([part[name] for part in parts])
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=name)
    # Devices of two groups differ.
    assert np.abs(one["mean"][0] - one["mean"][1]).max() > 0.1


@pytest.mark.slow
def test_training_with_grouped_statistics(finished):
    expected = job.run(job.configure(**two_processes.GROUPED), "ubn")
    for numbers in finished[1]:
        for name, value in expected.items():
            found = numbers[f"grouped {name}"]
            np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_masks_with_different_counts(finished):
    for numbers in finished[1]:
        for name, value in masks.reference().items():
            found = numbers[f"masks ['batch_stats']['{name}']"]
            np.testing.assert_allclose(found, value, rtol=2e-6, err_msg=name)


@pytest.mark.slow
def test_same_configuration(finished):
    host = socket.gethostname()
    for messages in finished[2]:
        assert messages["same"] == "no error"
        assert messages["other"] == (
            "processes were not given the same configuration: process 1 "
            f"({host}) has `optim.weight_penalty` = 0.1, process 0 ({host}) 0.0. Start all of them "
            "with the same command, code and data."
        )


def test_difference_names_every_process_and_field():
    text = distributed.difference(
        [
            {"host": "a", "values": {"x": 1, "y": [2]}},
            {"host": "b", "values": {"x": 1, "y": [2]}},
            {"host": "c", "values": {"x": 3, "z": None}},
        ]
    )
    assert "process 2 (c) has `x` = 3, process 0 (a) 1" in text
    assert "process 2 (c) has `y` = nothing, process 0 (a) [2]" in text
    assert "process 2 (c) has `z` = null, process 0 (a) nothing" in text
    assert "process 1" not in text


@pytest.mark.slow
def test_files_are_the_work_of_process_0(finished):
    folder, _, messages, _ = finished
    for message in messages:
        assert message["made"] == "made"
        assert message["failed"] == "it exists"
        assert message["unseen"] == (
            f"run folder {folder / 'there'} of process 0 is not there for process 1: give a "
            "--run-dir on a file system that all processes share."
        )


@functools.cache
def alone():
    """The training job of the two processes in a few lines, on one device."""
    arguments = [*two_processes.TRAIN.split(), "--num-devices", "1"]
    config = tyro.cli(TrainConfig, args=arguments)
    dataset = load_dataset(config.data)
    program = build_program(config, "ubn", dataset)
    state = program.init(jax.random.key(0), dataset.example(config.optim.batch_size)["image"])
    rows = []
    with closing(dataset.pipeline(0, config.optim.batch_size)) as pipeline:
        for batch in pipeline.batches(0):
            state, metrics = program.train_step(state, batch)
            rows.append(jax.device_get(metrics))
    return program, state, rows, evaluate_test(program, state, dataset)


@pytest.mark.slow
def test_training_job(finished):
    """A run of one device goes on with two processes, as if nothing had happened.

    Each of them reads its own images; process 0 alone writes, and tells, anything.
    """
    folder, _, messages, outputs = finished
    run = folder / "run" / "ubn-seed0"
    assert [message["status"] for message in messages] == [0, 0]
    assert "test accuracy" in outputs[0]
    assert "8 x cpu" in outputs[0]
    assert "ubn, seed 0: goes on after update 5" in outputs[0]
    # Gloo's threads tell of their peers, sometimes into each other's lines.
    assert not [x for x in outputs[1].splitlines() if not re.search(r"\[Gloo\]|peer ranks|^$", x)]
    _, _, updates, evaluation = alone()
    for kind, expected in (("train", updates), ("eval", [evaluation])):
        rows = [json.loads(line) for line in (run / f"{kind}.jsonl").read_text().splitlines()]
        assert len(rows) == len(expected)
        for row, one in zip(rows, expected, strict=True):
            for name, value in one.items():
                assert row[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
    assert len(list((folder / "run").rglob("events*"))) == 2  # one for each start
    assert files.read_json(folder / "run" / "summary.json")["results"][0]["norm"] == "ubn"


@pytest.mark.slow
def test_checkpoint_of_all_processes(finished):
    """It is complete, and one process with one device can read it."""
    program, state, *_ = alone()
    template = jax.eval_shape(program.init, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    saved = checkpoint.restore(finished[0] / "run" / "ubn-seed0" / "checkpoints", template)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        checkpoint.state_arrays(saved.state),
        checkpoint.state_arrays(state),
    )


@pytest.mark.slow
def test_stopped_and_damaged_runs_go_on(finished):
    """Both processes from the same update: the one agreed on, or the one before if it is damaged.

    All end like the run that nothing happened to, bit by bit.
    """
    folder, _, messages, outputs = finished
    job_folders = [folder / name / "ubn-seed0" for name in two_processes.LONGER_RUNS]
    stopped_run, damaged_run, whole = job_folders
    (aside,) = (damaged_run / "checkpoints").glob("damaged-*")
    last = int(aside.name.removeprefix("damaged-"))
    before = (last - 1) // 11 * 11  # There is a checkpoint after each epoch of 11 updates.
    for process in messages:
        assert process["longer"]["steps"] == [last, before, 0]
    assert f"ubn, seed 0: goes on after update {last}\n" in outputs[0]
    assert re.search(
        rf"Warning: the checkpoint of update {last}\b.* (is damaged: the SHA-256|cannot be read)"
        rf".* It was put aside as {aside}\.\nubn, seed 0: goes on after update {before}\n",
        outputs[0],
    )
    template = jax.eval_shape(
        alone()[0].init, jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32)
    )
    for run in (stopped_run, damaged_run):
        checks = compare_runs(whole, run, template)
        assert min(check.size for check in checks) > 0
        assert [text for check in checks for text in check.differences] == []


@pytest.mark.slow
def test_nobody_else_asks_whether_to_stop(finished):
    """Orbax would, at each save, with smaller numbers: a notice right after that was lost."""
    for process in finished[2]:
        for numbers in process["longer"]["questions"]:
            assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > 33


@pytest.mark.slow
def test_both_processes_are_stopped(tmp_path):
    check_stopped(tmp_path / "run", stop(tmp_path / "run", 0, 1))
