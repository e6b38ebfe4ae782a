"""The command that counts the dead channels of a run."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from experiments.config.experiment import ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from experiments.data import load_dataset
from experiments.studies import singularities
from experiments.training import job
from experiments.training.restored import restored

CONFIG = TrainConfig(
    norms=("bn", "none"),
    seeds=(3,),
    evals_per_epoch=1,
    model=ModelConfig(blocks=(1,), widths=(4,)),
    optim=OptimConfig(epochs=1, batch_size=256),
    probe=ProbeConfig(every=0),
)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    job.train(
        dataclasses.replace(CONFIG, run_dir=str(folder)), Console(file=io.StringIO()), figures=False
    )
    return folder


def test_numbers_are_those_of_all_test_images(run_folder):
    networks = singularities.diagnose(run_folder, Console(file=io.StringIO()))
    assert [(network.norm, network.seed) for network in networks] == [("bn", 3), ("none", 3)]
    dataset = load_dataset("digits")
    for network, found in zip(networks, restored(run_folder, dataset), strict=True):
        program = found.program
        assert [layer.layer for layer in network.layers] == ["/".join(p) for p in program.layers]
        _, captured = program.model.apply(
            {"params": found.state.params, "batch_stats": found.state.batch_stats},
            dataset.standardize(dataset.test_images),  # 360 of them: no multiple of a batch
            train=False,
            capture_intermediates=True,
            mutable="intermediates",
        )
        for path, layer in zip(program.layers, network.layers, strict=True):
            values = captured["intermediates"]
            for name in path:
                values = values[name]
            values = np.asarray(values["__call__"][0], np.float64).reshape(-1, layer.channels)
            assert layer.dead == (values.max(0) <= 0).sum()
            ratio = np.abs(values.mean(0)) / values.std(0)
            np.testing.assert_allclose(layer.mean_to_std, ratio, rtol=1e-3, atol=1e-4)


def test_table(run_folder, capsys):
    assert singularities.main([str(run_folder)]) == 0
    output = " ".join(capsys.readouterr().out.split())
    for text in ("none", "16", "median", "have no gradient"):
        assert text in output
    assert singularities.main([str(run_folder), "--layers"]) == 0
    by_layer = capsys.readouterr().out
    for layer in ("stem_norm", "block_0/norm_0", "block_0/norm_1", "head_norm"):
        assert by_layer.count(layer) == 2


def test_needs_a_finished_run(tmp_path, capsys):
    assert singularities.main([str(tmp_path)]) == 1
    assert "give the folder of a finished run" in capsys.readouterr().err
