"""The fault test in short: real processes, killed by SIGKILL, end like one that was not."""

import dataclasses
import io
import os
import time

import pytest
from rich.console import Console

from experiments.benchmarks.faults import __main__ as faults
from experiments.benchmarks.faults.compare import Check
from experiments.benchmarks.faults.kill import Kill, Moment, Progress, draw_moments
from experiments.benchmarks.faults.record import faults_record
from experiments.common.files import read_json
from experiments.publish import tables_of

SHORT = faults.FaultsConfig(
    kills=2, norms=("ubn",), seeds=(0,), epochs=6, widths=(4,), probe_every=0
)


@pytest.mark.slow
def test_killed_training_ends_as_if_it_had_not_been(tmp_path):
    output = io.StringIO()
    path = tmp_path / "results" / "faults.json"
    config = dataclasses.replace(SHORT, folder=tmp_path / "faults", json=path)
    faults.run(config, Console(file=output, width=100), "the command")
    text = output.getvalue()
    assert "2 kills, no difference" in text
    record = read_json(path)
    assert record["command"] == "the command"
    assert str(tmp_path) not in path.read_text()
    assert record["options"]["epochs"] == 6
    found = record["faults"]
    assert found["updates"] == 6 * 22  # of 1,437 images in batches of 64
    assert [kill["planned"] for kill in found["kills"]] == ["save", "training"]
    for kill in found["kills"]:
        assert 0 <= kill["saved"] <= kill["updates"] < found["updates"]
    sizes = {check["name"]: check["size"] for check in found["checks"]}
    assert sizes["rows of train.jsonl"] == found["updates"]
    assert not any(check["differences"] for check in found["checks"])


def test_what_a_killed_process_left_is_no_save(tmp_path):
    (tmp_path / "ubn-seed0" / "checkpoints" / "44.orbax-checkpoint-tmp").mkdir(parents=True)
    progress = Progress(tmp_path, 100)
    assert progress.is_saving()
    progress.began = time.time() + 1
    assert not progress.is_saving()
    folder = tmp_path / "ubn-seed0" / "checkpoints" / "66.orbax-checkpoint-tmp"
    folder.mkdir()
    os.utime(folder, (progress.began + 1, progress.began + 1))
    assert progress.is_saving()


def test_tables_of_a_record():
    moment = Moment("training", 0.5, 0.1)
    met = [("save", 60, 44), ("training", 90, 88), ("save", 130, 110)]
    kills = [Kill(moment, *numbers) for numbers in met]
    checks = [Check("final params", 1234, []), Check("rows of train.jsonl", 132, ["a", "b"])]
    record = faults_record({}, "", kills, checks, 132, {"undisturbed": 10.04})
    assert record["faults"]["seconds"] == {"undisturbed": 10.0}
    made = tables_of(record)
    assert list(made["kills"].cells()) == [
        ["training", "1", "2", "2"],
        ["save", "2", "18", "20"],
        ["any", "3", "13", "20"],
    ]
    assert list(made["compared"].cells()) == [
        ["final params", "1,234", "0"],
        ["rows of train.jsonl", "132", "2"],
    ]


def test_an_existing_record_is_not_overwritten(tmp_path):
    (tmp_path / "there.json").write_text("kept")
    with pytest.raises(ValueError, match="exists, and results are never overwritten"):
        faults.run(dataclasses.replace(SHORT, json=tmp_path / "there.json"), Console())


def test_moments_are_spread():
    moments = draw_moments(20, seed=0, start_seconds=8.0, stretch_seconds=0.5)
    assert moments == draw_moments(20, seed=0, start_seconds=8.0, stretch_seconds=0.5)
    assert [moment.fraction for moment in moments] == sorted(m.fraction for m in moments)
    assert [m.kind for m in moments].count("save") == 7
    for moment in moments:
        assert 0 <= moment.fraction < 0.9
        assert 0 <= moment.delay <= {"save": 0.03, "training": 0.5, "start": 8.0}[moment.kind]


def test_no_kills():
    with pytest.raises(ValueError, match=r"`kills` \(=0\) must be a positive number"):
        faults.FaultsConfig(kills=0)
