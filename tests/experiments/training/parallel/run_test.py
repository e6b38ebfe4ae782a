"""Whole runs on eight devices: what the probe sees, and going on with other devices."""

import dataclasses
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from experiments import train
from experiments.common.errors import Preempted
from experiments.common.files import read_rows
from experiments.config.data import DataConfig
from experiments.config.experiment import OptimConfig, ProbeConfig
from experiments.data import load_dataset
from experiments.training import job as training_job
from experiments.training.loop import train_seeds
from experiments.training.probing import with_probe
from experiments.training.program import build_program, compile_program
from tests.experiments.training.parallel import job

DEVICES = {
    "one": {"num_devices": 1},
    "pmap": {"parallel": "pmap"},
    "shard_map": {"parallel": "shard_map"},
}
OPTIM = OptimConfig(epochs=1, batch_size=128, learning_rate=0.01)


@pytest.fixture(scope="module")
def shift(tmp_path_factory):
    """The rows of a run of 11 updates that is probed, for each way to spread it."""
    dataset = load_dataset(DataConfig(max_shift=0))
    rows, probe = {}, None
    for name, devices in DEVICES.items():
        config = dataclasses.replace(
            job.configure(**devices), optim=OPTIM, probe=ProbeConfig(every=5, images=16)
        )
        program = compile_program(build_program(config, "ubn", dataset), dataset, 128)
        # One for all, because it is what takes long to compile: its images are on no device.
        probe = probe or with_probe(program, config.probe, dataset).probe
        folder = tmp_path_factory.mktemp(name)
        (run,) = train_seeds(config, [program._replace(probe=probe)], dataset, (0,), folder)
        rows[name] = read_rows(run.folder / "ics.jsonl")
    return rows


@pytest.mark.parametrize("mode", [pytest.param("pmap", marks=pytest.mark.slow), "shard_map"])
def test_the_probe_sees_what_one_device_would(shift, mode):
    """Every number of every row.

    The shift of one update is a difference of outputs that are 500 times as large, and these differ
    by up to 1e-6 between the transforms. Found: 1e-5 of the shift.
    """
    assert [(row["step"], row["layer"]) for row in shift[mode]] == [(5, "norm"), (10, "norm")]
    for row, one in zip(shift[mode], shift["one"], strict=True):
        assert row.keys() == one.keys()
        numbers = {name for name, value in one.items() if isinstance(value, float)}
        assert numbers >= {"value", "relative", "certified_lower", "certified_upper"}
        for name, value in one.items():
            if name in numbers:
                np.testing.assert_allclose(row[name], value, rtol=1e-4, err_msg=name)
            else:
                assert row[name] == value, name
        assert 0 < row["certified_lower"] <= row["value"] <= row["certified_upper"]


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [
        (["--statistics", "per_device"], "8 x 1", "4 x 1"),
        (["--statistics", "grouped", "--statistics-group", "2"], "4 x 2", "2 x 2"),
        (["--optim.accumulate", "2"], "1 x 8", "1 x 4"),
    ],
)
def test_fewer_devices_with_statistics_of_their_own(tmp_path, capsys, options, before, after):
    """It would be another computation: refused before anything is compiled or changed."""
    arguments = [*options, "--probe.every", "0", "--run-dir", str(tmp_path / "run")]
    # Stopped when it has begun.
    with mock.patch.object(training_job, "_compile", side_effect=Preempted):
        assert train.main(arguments) == 0
        files = contents(tmp_path)
        assert train.main([*arguments, "--num-devices", "4", "--resume", "must"]) == 1
        assert contents(tmp_path) == files
        statistics = options[1] if options[0] == "--statistics" else "synchronised"
        accumulate = options[1] if options[0] == "--optim.accumulate" else "1"
        assert capsys.readouterr().err == (
            f"error: the run in {tmp_path / 'run'} was started on {before} devices (groups x "
            f"devices that share statistics), and here are {after}: with --statistics {statistics} "
            f"and --optim.accumulate {accumulate} that would be another computation. Resume it on "
            "as many devices.\n"
        )
        assert train.main([*arguments, "--resume", "must"]) == 0


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
