"""The benchmark of the pipelines, where the answer is known."""

import json

import pytest

from experiments.benchmarks import __main__ as bench
from experiments.benchmarks import data
from experiments.config.experiment import ModelConfig


def test_a_slow_step_does_not_wait():
    row = data.measure("digits", data.digits(), ModelConfig(), 64, 0.3, imitated=640)
    assert row.step_rate == pytest.approx(640, rel=0.3)
    assert row.both_rate == pytest.approx(640, rel=0.3)
    assert row.pipeline_rate > 2 * row.step_rate
    assert row.waiting < 0.3


def test_a_fast_step_waits_for_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "_FILES", 16)
    dataset = data.imagenet(tmp_path, size=224, threads=1)
    contents = [len(example.content) for example in dataset.train.read(range(16))]
    assert 80_000 < sum(contents) / 16 < 140_000  # As ImageNet's.
    row = data.measure("ImageNet", dataset, ModelConfig(), 8, 0.3, imitated=1e6)
    assert row.waiting > 0.8
    assert row.both_rate < row.step_rate / 2


def test_command_line(tmp_path, capsys, monkeypatch):
    small = ModelConfig(blocks=(1,), widths=(4,))  # Compiles fast.
    monkeypatch.setattr(data, "ModelConfig", lambda **options: small)
    path = tmp_path / "new" / "rows.json"
    arguments = ["data", "--cases", "digits", "--seconds", "0.05", "--json", str(path)]
    assert bench.main(arguments) == 0
    assert "digits, in memory 8x8, 64" in " ".join(capsys.readouterr().out.split())
    stored = json.loads(path.read_text())
    command = "python -m experiments bench data --cases digits --seconds 0.05"
    assert (stored["benchmark"], stored["command"]) == ("data", command)
    (row,) = stored["rows"]
    assert 0 < row["waiting"] < 1
    assert bench.main(arguments) == 1
    assert "exists, and results are never overwritten" in capsys.readouterr().err
    assert bench.main(["data", "--cases", "mnist"]) == 1
    error = capsys.readouterr().err
    assert "case (='mnist') is unknown; choose from digits, cifar, imagenet." in error
