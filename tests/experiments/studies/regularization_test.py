"""The study of folded weights on a tiny network, and its command."""

import dataclasses

import numpy as np
import pytest
from rich.console import Console

from experiments import publish
from experiments.common.files import read_json
from experiments.data import load_arrays
from experiments.studies.regularization import __main__ as command
from experiments.studies.regularization.config import RegularizationConfig
from experiments.studies.regularization.study import noisy_data
from experiments.studies.regularization.summary import best_penalty, brief, summarize

pytestmark = pytest.mark.slow

TINY = RegularizationConfig(
    images=50,
    noises=(0.0, 0.5),
    penalties=(0.0, 1e-2),
    seeds=(0, 1),
    hidden=3,
    scale=0.5,
    updates=20,
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("studies") / "out"
    config = dataclasses.replace(TINY, out=out)
    with (out.parent / "output").open("w") as file:
        command.run(config, Console(file=file, width=150))
    return config, (out.parent / "output").read_text()


def test_folded_weights_keep_the_constraint(done):
    """sd(v'x) = gamma over the training set, at every level of noise; norms follow the noise."""
    config, output = done
    for noise in config.noises:
        rows = read_json(config.out / f"noise-{noise:g}.json")
        assert len(rows) == 2 * (2 + len(config.penalties))
        for row in rows:
            assert row["noise"] == noise
            if row["network"] == "bn":
                np.testing.assert_allclose(row["deviations"], 0.5, rtol=1e-3)
                squared = np.square(row["norms"])
                # Of the layer: the coefficient with the pull of all units.
                mean = np.average(row["weight_decays"], weights=squared)
                assert row["weight_decay"] == pytest.approx(mean, rel=1e-4)
    found = read_json(config.out / "summary.json")
    assert [entry["noise"] for entry in found] == [0.0, 0.5]
    norms = [np.mean(entry["norm"]["bn"]) for entry in found]
    assert norms[1] < norms[0]
    assert f"{norms[0]:.2f}" in output
    assert (config.out / "regularization.png").read_bytes().startswith(b"\x89PNG")


def test_best_penalty_is_that_of_least_mean_loss():
    rows = [
        {"network": "no norm", "noise": 0.0, "penalty": p, "validation_cross_entropy": loss}
        for p, loss in ((0.0, 1.0), (0.0, 3.0), (0.1, 1.5), (0.1, 1.5), (1.0, 1.0), (1.0, 9.0))
    ]
    assert best_penalty(rows, 0.0) == 0.1


def test_a_penalty_with_which_a_network_diverged_is_not_the_best():
    def row(penalty, loss):
        common = {"network": "no norm", "noise": 1.0}
        return {**common, "penalty": penalty, "validation_cross_entropy": loss}

    rows = [row(0.0, np.nan), row(0.0, 0.1), row(0.1, 0.7), row(0.2, 0.6)]
    assert best_penalty(rows, 1.0) == 0.2


def test_noise_is_of_the_size_it_says_and_belongs_to_the_data():
    dataset = load_arrays("digits")
    clean, noisy = (noisy_data(dataset, noise, 3, 100) for noise in (0.0, 0.5))
    assert len(clean.train) == 80
    assert len(clean.validation) == 20
    for part in ("train", "test"):
        added = getattr(noisy, part) - getattr(clean, part)
        assert added.std() == pytest.approx(0.5, rel=0.05)
    np.testing.assert_array_equal(clean.train_labels, noisy.train_labels)


def test_an_unfinished_study_goes_on_and_another_is_not_touched(done, monkeypatch, capsys):
    config, _ = done
    seen = []
    measured = command.study.measure_noise
    monkeypatch.setattr(
        command.study,
        "measure_noise",
        lambda data, noise, *rest: seen.append(noise) or measured(data, noise, *rest),
    )
    (config.out / "noise-0.5.json").unlink()
    before = (config.out / "summary.json").read_bytes()
    command.run(config, Console())
    assert seen == [0.5]
    assert "1 of 2 levels of noise are in" in capsys.readouterr().out
    assert (config.out / "summary.json").read_bytes() == before
    with pytest.raises(ValueError, match=r"holds a study with another `hidden` \(=3, not 4\)"):
        command.run(dataclasses.replace(config, hidden=4), Console())
    rows = read_json(config.out / "noise-0.json") + read_json(config.out / "noise-0.5.json")
    assert summarize(brief(rows)) == read_json(config.out / "summary.json")


def test_the_record_has_tables_and_figure(done, tmp_path):
    config, output = done
    command.run(dataclasses.replace(config, record=tmp_path), Console(quiet=True))
    record = read_json(tmp_path / "regularization.json")
    made = publish.tables_of(record)
    assert list(made) == ["accuracy", "weights"]
    mean = np.mean(
        [
            row["test_accuracy"]
            for row in publish._named(record)
            if row["network"] == "bn" and row["noise"] == 0.5
        ]
    )
    assert made["accuracy"].rows[1][:2] == (0.5, (mean, pytest.approx(0, abs=1)))
    assert f"{100 * mean:.1f}" in output
    path = tmp_path / "regularization_weights.png"
    publish.draw(path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noises": ()}, r"`noises` \(=\(\)\) must be one or more different values"),
        ({"noises": (-0.1,)}, r"`noises` \(=-0.1\) must be zero or a positive number"),
        ({"penalties": (0.1, 0.1)}, r"`penalties` \(=\(0.1, 0.1\)\) must be one or more different"),
        ({"images": 9}, r"`images` \(=9\) must be at least 10"),
        ({"scale": 0.0}, r"`scale` \(=0.0\) must be a positive number"),
        ({"dataset": "svhn"}, r"`dataset` \(='svhn'\) is unknown"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        RegularizationConfig(**options)


def test_a_loss_that_is_not_finite_is_named(tmp_path, capsys):
    flags = "--learning-rate 1e30 --images 20 --updates 3 --hidden 2 --noises 0 --seeds 0"
    assert command.main([*flags.split(), "--out", str(tmp_path / "out")]) == 1
    assert "is not finite. Nothing of this level of noise was written" in capsys.readouterr().err
