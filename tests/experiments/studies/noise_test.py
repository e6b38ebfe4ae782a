"""The noise study: its protocol on a small trained network, and the command."""

import csv
import io

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.config.experiment import ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from experiments.data import load_arrays
from experiments.studies.noise import __main__ as command
from experiments.studies.noise.networks import make_networks
from experiments.studies.noise.study import KINDS, Protocol, Row, measure, select
from experiments.training.job import train
from experiments.training.restored import restored
from unitnorm_jax.contrib.noise_aware_batch_norm import additive_noise

pytestmark = pytest.mark.slow

PROTOCOL = Protocol(batch_size=360, calibration_batches=2, rate=0.5, dynamic=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """BN and no norm, trained until they know something."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    config = TrainConfig(
        norms=("bn", "none"),
        seeds=(0,),
        run_dir=str(folder),
        model=ModelConfig(blocks=(1,), widths=(8,)),
        optim=OptimConfig(epochs=6, batch_size=64),
        probe=ProbeConfig(every=0),
        evals_per_epoch=1,
        checkpoint_every=8,
    )
    train(config, Console(file=io.StringIO()), figures=False)
    return folder


@pytest.fixture(scope="module")
def networks(trained):
    dataset = load_arrays("digits")
    found = make_networks(list(restored(trained, dataset)), noisy=False)
    return dataset, {network.norm: network for network in found}


def run(network, level, dataset, kind="additive", chip=0, **changes):
    protocol = PROTOCOL._replace(**changes)
    return {r.method: r for r in measure(network, kind, level, chip, dataset, protocol)}


def test_without_noise_it_is_the_accuracy_of_training(networks, trained):
    dataset, found = networks
    assert found["bn"].keeps_statistics
    assert not found["none"].keeps_statistics
    for network in found.values():
        rows = run(network, 0.0, dataset)
        logits = network.steps.predict(
            network.variables, dataset.test_images, jax.random.key(0), 0.0
        )
        expected = np.mean(np.asarray(logits).argmax(-1) == dataset.test_labels)
        assert rows["clean"].accuracy == pytest.approx(expected)
        assert expected > (0.6 if network.norm == "bn" else 0.3)
    assert set(run(found["bn"], 0.0, dataset)) == {"clean", "recalibrated", "tracked"}
    assert set(run(found["none"], 0.0, dataset)) == {"clean"}


def test_statistics_help_under_noise(networks):
    dataset, found = networks
    rows = [run(found["bn"], 0.1, dataset, chip=chip) for chip in range(4)]
    means = {m: np.mean([r[m].accuracy for r in rows]) for m in rows[0]}
    assert means["recalibrated"] > means["clean"] + 0.05
    assert means["tracked"] > means["clean"] + 0.02
    assert len({r["clean"].accuracy for r in rows}) > 1  # chips differ


def test_same_chip_same_numbers_and_static_noise_is_that_of_the_chip(networks):
    dataset, found = networks
    network = found["bn"]
    one, again = (run(network, 0.1, dataset) for _ in range(2))
    assert one == again
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(network.seed), 0), 0)
    params = additive_noise(0.1)(key, network.variables["params"])
    logits = network.steps.predict(
        {**network.variables, "params": params}, dataset.test_images, key, 0.0
    )
    expected = np.mean(np.asarray(logits).argmax(-1) == dataset.test_labels)
    assert one["clean"].accuracy == pytest.approx(expected, abs=1.5 / 360)
    still, moving = (run(network, 0.1, dataset, batch_size=60, dynamic=d) for d in (False, True))
    assert still["clean"].accuracy == pytest.approx(expected, abs=1.5 / 360)
    assert moving["clean"].accuracy != still["clean"].accuracy


def test_rate_0_does_not_track(networks):
    dataset, found = networks
    rows = run(found["bn"], 0.1, dataset, rate=0.0)
    assert rows["tracked"].accuracy == rows["clean"].accuracy


@pytest.mark.parametrize("kind", ["output", "drift"])
def test_every_kind_disturbs_more_where_it_is_stronger(kind, trained, networks):
    dataset, found = networks
    noisy = KINDS[kind].make is None
    clean = next(measure(found["bn"], "additive", 0.0, 0, dataset, PROTOCOL)).accuracy
    network = found["bn"]
    if noisy:
        network = next(make_networks(list(restored(trained, dataset)), noisy))
    weak, strong = KINDS[kind].levels[0], KINDS[kind].levels[-1]
    first, last = (
        next(measure(network, kind, level, 0, dataset, PROTOCOL)).accuracy
        for level in (weak, strong)
    )
    assert first == pytest.approx(clean, abs=0.01)
    assert last < first - 0.1


def test_command_writes_tables_and_goes_on(trained, tmp_path, capsys):
    folder = tmp_path / "out"
    flags = f"--trained {trained} --run-dir {folder} --chips 2 --batch-size 360"
    flags += " --kinds additive quantization"
    assert command.main(flags.split()) == 0
    output = " ".join(capsys.readouterr().out.split())
    with (folder / "noise.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == Row._fields
    chips = 2 * len(KINDS["additive"].levels) + len(KINDS["quantization"].levels)
    assert len(rows) == chips * (3 + 1)
    assert (folder / "noise.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "versions.json").exists()
    values = [
        100 * float(r["accuracy"])
        for r in rows
        if (r["kind"], r["norm"], r["level"]) == ("additive", "none", "0.1")
    ]
    assert f"{np.mean(values):.1f} ({np.std(values, ddof=1):.1f})" in output
    before = (folder / "noise.csv").read_bytes()
    assert command.main(flags.split()) == 0
    assert "is finished" in capsys.readouterr().out
    assert command.main([*flags.split(), "--rate", "0.5"]) == 1
    assert "holds a study with another `rate` (=0.3, not 0.5)" in capsys.readouterr().err
    assert (folder / "noise.csv").read_bytes() == before


def test_command_trains_what_it_is_not_given(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(command, "train", lambda config, console: seen.append(config))
    config = command.NoiseConfig(run_dir=tmp_path / "out", seeds=(7,), norms=("ubn",), epochs=2)
    with pytest.raises(ValueError, match=r"summary\.json does not exist"):  # of the stand-in
        command.study(config, Console(file=io.StringIO()))
    (training,) = seen
    assert (training.seeds, training.norms, training.optim.epochs) == ((7,), ("ubn",), 2)
    # A study that was cut off goes on with its training.
    assert (training.run_dir, training.resume) == (str(tmp_path / "out" / "training"), "auto")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ("heat",)}, r"noise \(='heat'\) is unknown; choose from additive, "),
        ({"kinds": ()}, r"`kinds` \(=\(\)\) must be one or more different noises"),
        ({"levels": (0.1,)}, r"`levels` \(=\(0.1,\)\) must be one or more, of one kind of noise"),
        (
            {"kinds": ("additive",), "levels": (-0.1,)},
            r"`strength` \(=-0.1\) must be finite and not",
        ),
        ({"kinds": ("output",), "levels": (-0.1,)}, r"`strength` \(=-0.1\) must be finite and not"),
        ({"kinds": ("drift",), "levels": (0.1,)}, r"`time` \(=0.1\) must be finite and at least 1"),
        ({"kinds": ("quantization",), "levels": (1,)}, r"`bits` \(=1\) must be at least 2"),
        ({"rate": -0.1}, r"`rate` \(=-0.1\) must be zero or a positive number"),
        ({"rate": 1.1}, r"`rate` \(=1.1\) must be in \[0, 1\]"),
        ({"chips": 0}, r"`chips` \(=0\) must be a positive number"),
        ({"calibration_batches": 0}, r"`calibration_batches` \(=0\) must be a positive number"),
    ],
)
def test_bad_flags(changes, message):
    with pytest.raises(ValueError, match=message):
        command.NoiseConfig(**changes)


def test_a_folder_that_is_no_run_is_named_before_anything_is_written(tmp_path, capsys):
    out = tmp_path / "out"
    assert command.main(["--trained", str(tmp_path), "--run-dir", str(out)]) == 1
    assert "give the folder of a finished run" in capsys.readouterr().err
    assert not out.exists()


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as status:
        command.main(["--help"])
    assert status.value.code == 0
    words = {word.strip(",.:()") for word in capsys.readouterr().out.split()}
    assert words >= {*KINDS, "--calibration-batches", "--dynamic"}


def test_select():
    row = Row("additive", 0.1, "bn", "clean", 0, 0, 0.5)
    rows = [row, row._replace(chip=1, accuracy=0.7)]
    np.testing.assert_array_equal(select(rows, norm="bn"), [0.5, 0.7])
    assert len(select(rows, norm="ubn")) == 0
    assert select(rows, chip=1).tolist() == [0.7]
