"""Probing while training: what is measured, when, and that it does no harm."""

import json
import time

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from experiments.common.files import read_rows
from experiments.config.experiment import (
    DevicesConfig,
    ModelConfig,
    OptimConfig,
    ProbeConfig,
    TrainConfig,
)
from experiments.data import load_dataset
from experiments.training import checkpoint, loop
from experiments.training.probing import RunProbe, compile_probe, probe_batch, with_probe
from experiments.training.program import build_program, compile_program
from experiments.training.record import Recorder

CONFIG = TrainConfig(
    seeds=(0,),
    evals_per_epoch=1,
    model=ModelConfig(blocks=(1,), widths=(4,)),
    optim=OptimConfig(epochs=1, batch_size=128),
    probe=ProbeConfig(every=5, images=16),
    devices=DevicesConfig(num_devices=1),
)
DATASET = load_dataset("digits")
NORMS = ("bn", "ubn")


@pytest.fixture(scope="module")
def programs():
    return [make_program(norm, CONFIG.probe) for norm in NORMS]


@pytest.fixture(scope="module")
def probed(programs, tmp_path_factory):
    """Runs with the probe, and their folder."""
    folder = tmp_path_factory.mktemp("probed")
    return loop.train_seeds(CONFIG, programs, DATASET, (0,), folder), folder


def make_program(norm, probe):
    program = with_probe(build_program(CONFIG, norm, DATASET), probe, DATASET)
    program = compile_program(program, DATASET, CONFIG.optim.batch_size)
    return compile_probe(program, DATASET.train_images[: CONFIG.optim.batch_size])


def read(folder, norm):
    lines = (folder / f"{norm}-seed0" / "ics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_training_is_the_same_without_the_probe(programs, probed, tmp_path):
    without = [program._replace(probe=None) for program in programs]
    plain = loop.train_seeds(CONFIG, without, DATASET, (0,), tmp_path)
    for a, b in zip(probed[0], plain, strict=True):
        sums = [checkpoint.checksums(checkpoint.state_arrays(run.state)) for run in (a, b)]
        assert sums[0] == sums[1]
        assert [row["loss"] for row in a.train_rows] == [row["loss"] for row in b.train_rows]
        assert b.probe.seconds == 0
    assert not list(tmp_path.rglob("ics.jsonl"))


def test_all_norms_are_probed_in_the_same_layers_at_the_same_updates(programs, probed):
    found = [[(r["step"], r["layer"], r["lag"]) for r in read(probed[1], norm)] for norm in NORMS]
    layers = ["/".join(path) for path in programs[0].layers]
    assert found[0] == found[1] == [(step, layer, 1) for step in (5, 10) for layer in layers]
    for norm in NORMS:
        for row in read(probed[1], norm):
            assert (row["mode"], row["statistics"], row["n"]) == ("train", "batch", 16)
            assert 0 < row["certified_lower"] <= row["value"] <= row["certified_upper"]


@pytest.mark.parametrize(
    ("lag", "mode"), [(1, "train"), pytest.param(5, "eval", marks=pytest.mark.slow)]
)
def test_rows_are_distances_between_outputs_on_the_probe_images(lag, mode, tmp_path):
    """An optimal assignment in float64, of outputs that the model itself captures."""
    config = ProbeConfig(every=5, images=12, mode=mode, lag=lag)
    program = with_probe(build_program(CONFIG, "ubn", DATASET), config, DATASET)
    images = DATASET.train_images[:128]
    state = program.init(jax.random.key(0), images)
    batch = {"image": images, "label": DATASET.train_labels[:128]}
    outputs = []

    def see(state):
        _, sown = program.model.apply(
            {"params": state.params, "batch_stats": state.batch_stats},
            probe_batch(config, DATASET)[0],
            train=mode == "train",
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, nn.Module),
        )
        outputs.append(np.float64(sown["intermediates"]["head_norm"]["__call__"][0]))

    with Recorder(tmp_path / "run") as recorder:
        probe = RunProbe(program, config, recorder)
        probe(0, state)
        see(state)
        for step in range(1, 6):
            state, _ = program.train_step(state, batch)
            probe(step, state)
            see(state)
        probe.flush()
        rows = [json.loads(x) for x in (tmp_path / "run" / "ics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if row["layer"] == "head_norm"]
    assert (row["step"], row["lag"], row["mode"]) == (5, lag, mode)
    before, after = (outputs[i].reshape(12, -1) for i in (5 - lag, 5))
    cost = cdist(before, after)
    exact = cost[linear_sum_assignment(cost)].mean()
    assert row["value"] == pytest.approx(exact, rel=1e-4)
    spread = np.linalg.norm(before - before.mean(axis=0), axis=1).mean()
    assert row["relative"] == pytest.approx(exact / spread, rel=1e-4)


def test_probe_images():
    images, labels = probe_batch(ProbeConfig(images=7), DATASET)
    np.testing.assert_array_equal(images, probe_batch(ProbeConfig(images=9), DATASET)[0][:7])
    label_of = dict(zip(map(bytes, DATASET.train_images), DATASET.train_labels, strict=True))
    assert [label_of[bytes(image)] for image in np.asarray(images)] == list(labels)
    train = {image.tobytes() for image in DATASET.train_images}
    assert all(image.tobytes() in train for image in images)
    assert len({image.tobytes() for image in images}) == 7
    with pytest.raises(ValueError, match=r"`probe.images` \(=1438\) must be at most .* 1437 in"):
        probe_batch(ProbeConfig(images=1438), DATASET)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["bn", "ubn"])
def test_all_measures(norm, tmp_path):
    names = ("em", "moments", "channels", "mmd", "kmm", "gaussian", "gradient")
    config = ProbeConfig(every=2, images=8, measures=names)
    program = with_probe(build_program(CONFIG, norm, DATASET), config, DATASET)
    images = DATASET.train_images[:128]
    program = compile_probe(program, images)
    state = program.init(jax.random.key(0), images)
    batch = {"image": images, "label": DATASET.train_labels[:128]}
    with Recorder(tmp_path / "run") as recorder:
        probe = RunProbe(program, config, recorder)
        probe(0, state)
        for step in (1, 2):
            state, _ = program.train_step(state, batch)
            probe(step, state)
        probe.flush()
        rows = [json.loads(x) for x in (tmp_path / "run" / "ics.jsonl").read_text().splitlines()]
    columns = {"mean_drift", "std_drift_90", "channel_w1", "mmd", "kmm_sample_size", "gaussian_w2"}
    for row in rows:
        assert all(np.isfinite(row[name]) for name in (*columns, "gradient_l2", "gradient_cosine"))
        assert 1 <= row["kmm_sample_size"] <= 8.001
        # W2 of the moments is no more than that of the paired outputs.
        assert row["gaussian_w2"] > 0
    assert rows[0]["gradient_l2"] > 0  # of the first normalization, after the first convolution


def test_rows_are_written_at_the_next_state_or_when_asked(programs, tmp_path):
    state = programs[0].init(jax.random.key(0), DATASET.train_images[:128])
    with Recorder(tmp_path / "run") as recorder:
        probe, path = RunProbe(programs[0], CONFIG.probe, recorder), tmp_path / "run" / "ics.jsonl"
        found = []
        for step in range(16):
            probe(step, state)
            found.append({row["step"] for row in read_rows(path)})
        for _ in range(2):
            probe.flush()
            found.append([row["step"] for row in read_rows(path)])
    assert found[:16] == [set()] * 6 + [{5}] * 5 + [{5, 10}] * 5
    layers = len(programs[0].layers)
    assert found[16] == found[17] == [step for step in (5, 10, 15) for _ in range(layers)]


def test_its_time_is_part_of_that_of_the_updates(programs, tmp_path, monkeypatch):
    write = Recorder.write_lines

    def slow(recorder, kind, rows):
        if kind == "ics":
            time.sleep(0.6)
        write(recorder, kind, rows)

    monkeypatch.setattr(Recorder, "write_lines", slow)
    (run,) = loop.train_seeds(CONFIG, programs[:1], DATASET, (0,), tmp_path)
    assert run.probe.seconds == pytest.approx(2 * programs[0].probe_seconds)
    assert 0 < run.probe.seconds < 1
    assert run.train_seconds > 1.2
    assert run.step_ms == [pytest.approx(1e3 * run.train_seconds / 11)]


def test_a_measurement_without_its_earlier_state_is_left_out(programs, tmp_path):
    state = programs[0].init(jax.random.key(0), DATASET.train_images[:128])
    with Recorder(tmp_path / "run") as recorder:
        probe = RunProbe(programs[0], CONFIG.probe, recorder)
        for step in (5, 8, 10, 14, 15):  # resumed at 5 and at 10, say
            probe(step, state)
        probe.flush()
    rows = [json.loads(x) for x in (tmp_path / "run" / "ics.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == {15}
    assert all(row["value"] == 0 for row in rows)


def test_nothing_to_probe():
    program = with_probe(build_program(CONFIG, "none", DATASET), CONFIG.probe, DATASET)
    assert program.probe is None
    assert compile_probe(program, DATASET.train_images[:128]) is program
    assert with_probe(build_program(CONFIG, "bn", DATASET), ProbeConfig(0), DATASET).probe is None
