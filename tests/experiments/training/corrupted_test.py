"""A small network on corrupted test images."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import evaluate
from experiments.config.experiment import ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from experiments.data import load_arrays
from experiments.data.corruptions import corrupt
from experiments.training import corrupted, job
from experiments.training.program import build_program
from experiments.training.restored import Restored

CONFIG = TrainConfig(
    norms=("bn", "none"),
    seeds=(0,),
    model=ModelConfig(blocks=(1,), widths=(8,)),
    optim=OptimConfig(epochs=4, batch_size=64),
    probe=ProbeConfig(every=0),
    evals_per_epoch=1,
)
CASE = ("contrast", 4)


@pytest.fixture(scope="module")
def network():
    dataset = load_arrays("digits")
    # 120 images: one batch, whose statistics are those of the whole set.
    images, labels = dataset.test_images[:120], dataset.test_labels[:120]
    dataset = dataclasses.replace(dataset, test_images=images, test_labels=labels)
    program = build_program(CONFIG, "bn", dataset)
    state = program.init(jax.random.key(0), dataset.train_images[:64])
    return Restored("bn", 0, {}, program, jax.device_get(state)), dataset


def test_accuracy_with_both_statistics(network):
    one, dataset = network
    rows = list(corrupted.measure([one], dataset, 3, cases=(("clean", 0), CASE)))
    assert [(row.corruption, row.severity, row.statistics) for row in rows] == [
        *(("clean", 0, statistics) for statistics in ("training", "recalibrated")),
        *((*CASE, statistics) for statistics in ("training", "recalibrated")),
    ]
    black, white = dataset.black_white
    assert np.isclose(black, dataset.train_images.min())
    assert np.isclose(white, dataset.train_images.max())
    unit = (dataset.test_images - black) / (white - black)
    spoiled = black + (white - black) * corrupt(*CASE, unit.astype(np.float32), seed=3)
    for images, pair in ((dataset.test_images, rows[:2]), (spoiled, rows[2:])):
        for train, row in zip((False, True), pair, strict=True):
            logits = one.program.model.apply(
                one.variables, jnp.asarray(images), train=train, mutable=["batch_stats"]
            )[0]
            expected = np.sum(np.asarray(logits).argmax(-1) == dataset.test_labels)
            assert row.correct == pytest.approx(expected, abs=1)
            assert row.images == 120


def test_images_of_8_bits_stay_such(network):
    _, dataset = network
    eight = dataclasses.replace(dataset, black_white=(0.0, 255.0))
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    found = corrupted.corrupted(eight, {"image": images}, ("brightness", 1), 0, 0)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.minimum(images + np.round(0.05 * 255), 255))


@pytest.mark.slow
def test_command(tmp_path, capsys):
    config = dataclasses.replace(CONFIG, run_dir=str(tmp_path / "run"))
    job.train(config, Console(file=io.StringIO()), figures=False)
    command = [str(tmp_path / "run"), "--corruptions", "--format", "json"]
    assert evaluate.main(command) == 0
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "corruptions.json").read_text())
    assert len(record["corruptions"]) == 41 * 3  # both statistics of bn, one of none
    assert len(json.loads(out)["rows"]) == 3
    assert (tmp_path / "run" / "corruptions.png").stat().st_size > 10_000
    (clean,) = (
        row for row in record["corruptions"] if row["severity"] == 0 and row["norm"] == "none"
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert clean["correct"] == summary["results"][1]["correct"]
    assert evaluate.main(command) == 0
    assert capsys.readouterr().out == out
    assert evaluate.main([*command, "--seed", "1"]) == 1
    assert "is of seed 0, not `seed` (=1)" in capsys.readouterr().err
