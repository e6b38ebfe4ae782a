"""What was written before still reads: a run folder of commit 7017c2a, from before the rooms.

``old_run.tar.gz`` is that of these options, without figures and page::

    python -m experiments.train --seeds 0 1 --norms bn ubn --optim.epochs 2 --optim.batch-size 64
        --data.train-images 256 --evals-per-epoch 1 --checkpoint-every 1 --keep-checkpoints 1
        --model.widths 4 --model.blocks 1 --probe.every 2 --probe.images 8 --run-dir runs/old
"""

import dataclasses
import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from experiments import evaluate
from experiments.analysis.compare.__main__ import CompareConfig, run_compare
from experiments.analysis.page import write_report
from experiments.analysis.results import read_config, read_results
from experiments.common.files import read_json, read_rows
from experiments.data import load_dataset
from experiments.studies import singularities
from experiments.training import job
from experiments.training.loop import train_seeds
from experiments.training.probing import compile_probe, with_probe
from experiments.training.program import build_program, compile_program
from unitnorm_jax import ics

ARCHIVE = Path(__file__).with_name("old_run.tar.gz")
LAYERS = ["stem_norm", "block_0/norm_0", "block_0/norm_1", "head_norm"]


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "old"


def resumed(folder):
    """Its options, to go on with."""
    return dataclasses.replace(read_config(folder), run_dir=str(folder), resume="auto")


def test_accuracies_are_reproduced(folder):
    found = evaluate.evaluate_run(folder, Console(quiet=True))
    reported = read_json(folder / "summary.json")["results"]
    assert [row["correct"] for row in found] == [row["correct"] for row in reported]
    assert len(found) == 4


def test_report_and_comparison(folder, tmp_path):
    results = read_results(folder)
    assert [len(run.train) for run in results.runs] == [8] * 4
    assert [len(run.ics) for run in results.runs] == [4 * len(LAYERS)] * 4
    assert write_report(results).stat().st_size > 50_000
    out = tmp_path / "compared"
    record = run_compare(CompareConfig((folder,), out=out), Console(quiet=True))
    assert [arm["name"] for arm in record["arms"]] == ["bn", "ubn"]
    assert [layer["layer"] for layer in record["arms"][1]["distances"]] == LAYERS


def test_the_librarys_reader_reads_the_rows_of_the_probe(folder):
    path = folder / "ubn-seed1" / "ics.jsonl"
    assert ics.read_rows(path) == read_rows(path)


def test_networks_are_looked_at(folder):
    networks = singularities.diagnose(folder, Console(quiet=True))
    assert [(network.norm, network.seed) for network in networks] == [
        *(("bn", 0), ("ubn", 0), ("bn", 1), ("ubn", 1))
    ]
    assert all(len(network.layers) == len(LAYERS) for network in networks)


def test_a_finished_run_is_finished(folder):
    said = io.StringIO()
    job.train(resumed(folder), Console(file=said, width=200), figures=False)
    assert "is finished" in said.getvalue()


def test_a_run_goes_on_from_its_checkpoints(folder):
    """It is taken back to its first epoch, and trains the second one again."""
    run = folder / "bn-seed0"
    shutil.rmtree(run / "checkpoints" / "8")
    before = [read_rows(run / f"{kind}.jsonl") for kind in ("train", "eval", "ics")]
    config = resumed(folder)
    dataset = load_dataset(config.data)
    built = with_probe(build_program(config, "bn", dataset), config.probe, dataset)
    size = config.optim.batch_size
    program = compile_probe(compile_program(built, dataset, size), dataset.example(size)["image"])
    said = []
    train_seeds(config, [program], dataset, (0,), folder, on_message=said.append)
    assert said == ["bn, seed 0: goes on after update 4"]
    for kind, old in zip(("train", "eval", "ics"), before, strict=True):
        new = read_rows(run / f"{kind}.jsonl")
        assert [row["step"] for row in new] == [row["step"] for row in old]
        name = {"train": "loss", "eval": "cross_entropy", "ics": "value"}[kind]
        # Compiled here with other options, or by another version.
        np.testing.assert_allclose([r[name] for r in new], [r[name] for r in old], rtol=1e-3)
