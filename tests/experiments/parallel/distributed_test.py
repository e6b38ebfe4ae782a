"""Two processes with four devices each are one device."""

import functools
import io
import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
import tyro
from rich.console import Console

from experiments import checkpoint, distributed, record, train
from experiments.build import build_program, evaluate_test
from experiments.config import TrainConfig
from experiments.data import load_dataset
from experiments.parallel import DevicesConfig
from tests.experiments.jobs import StopAfter
from tests.experiments.parallel import job, masks, two_processes

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Numbers and messages of both processes, and what they printed."""
    folder = tmp_path_factory.mktemp("two")
    # A run of one device, stopped after 5 of its 11 updates: the two processes go on with it.
    arguments = [*two_processes.TRAIN.split(), "--num-devices", "1"]
    with mock.patch.object(train, "Preemption", return_value=StopAfter(6)):
        assert train.main([*arguments, "--run-dir", str(folder / "run")]) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONWARNINGS": "error",
        # Most of the time is compilation.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    module = two_processes.__name__
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(i), str(port), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (output, error) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output + error
    numbers = [dict(np.load(folder / f"{i}.npz")) for i in range(2)]
    messages = [json.loads((folder / f"{i}.json").read_text()) for i in range(2)]
    return folder, numbers, messages, [output for output, _ in outputs]


def test_there_are_two_processes(finished):
    for message in finished[2]:
        assert message["processes"] == 2
        assert message["devices"] == [8, 4]


@pytest.mark.parametrize("mode", two_processes.MODES)
def test_numbers_are_those_of_one_device(finished, mode):
    expected = job.one_device("ubn")
    for numbers in finished[1]:
        prefix = f"{mode} ["
        found = {n.removeprefix(f"{mode} "): v for n, v in numbers.items() if n.startswith(prefix)}
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


def test_masks_with_different_counts(finished):
    for numbers in finished[1]:
        for name, value in masks.reference().items():
            found = numbers[f"masks ['batch_stats']['{name}']"]
            np.testing.assert_allclose(found, value, rtol=2e-6, err_msg=name)


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
    assert not [line for line in outputs[1].splitlines() if "[Gloo]" not in line]
    _, _, updates, evaluation = alone()
    for kind, expected in (("train", updates), ("eval", [evaluation])):
        rows = [json.loads(line) for line in (run / f"{kind}.jsonl").read_text().splitlines()]
        assert len(rows) == len(expected)
        for row, one in zip(rows, expected, strict=True):
            for name, value in one.items():
                assert row[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
    assert len(list((folder / "run").rglob("events*"))) == 2  # one for each start
    assert record.read_json(folder / "run" / "summary.json")["results"][0]["norm"] == "ubn"


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


def test_a_process_alone_needs_no_cluster(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    assert not distributed.initialize(DevicesConfig(distributed="none"))
    assert calls == []
    assert distributed.initialize(DevicesConfig())
    assert calls == [{"coordinator_address": None, "num_processes": None, "process_id": None}]


@pytest.mark.parametrize(
    ("error", "alone"),
    [
        (ValueError("coordinator_address should be defined."), True),
        (RuntimeError("... must be called before any JAX calls ..."), True),
        (RuntimeError("DEADLINE_EXCEEDED: barrier timed out\nmore"), False),
        (ValueError("Number of processes must be defined."), False),
    ],
)
def test_processes_that_cannot_be_joined(monkeypatch, error, alone):
    def fail(**options):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    if alone:
        assert not distributed.initialize(DevicesConfig())
        return
    first = str(error).splitlines()[0]
    with pytest.raises(ValueError, match=rf"could not be joined \({first}\). Start all processes"):
        distributed.initialize(DevicesConfig())


def test_another_process_writes_nothing(tmp_path):
    with record.NullRecorder() as recorder:
        recorder.write("train", [{"step": 1}])
    assert not list(tmp_path.iterdir())
    output = io.StringIO()
    Console(file=output, quiet=True).print("table")
    assert output.getvalue() == ""
