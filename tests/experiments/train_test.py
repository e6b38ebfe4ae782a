"""The training job from end to end, on two epochs of a very small network."""

import dataclasses
import functools
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto import event_pb2

from experiments import evaluate, train
from experiments.config.data import DATASETS
from experiments.config.experiment import (
    DevicesConfig,
    ModelConfig,
    OptimConfig,
    ProbeConfig,
    TrainConfig,
    from_dict,
)
from experiments.data import load_dataset, pipeline
from experiments.methods import NORMS
from experiments.training import checkpoint, job
from experiments.training.program import build_program

SMALL = TrainConfig(
    seeds=(0, 1),
    evals_per_epoch=1,
    checkpoint_every=1,
    profile=2,
    model=ModelConfig(blocks=(1,), widths=(4,)),
    optim=OptimConfig(epochs=2, batch_size=128),
    devices=DevicesConfig(num_devices=1),
)
UPDATES = 2 * (1437 // 128)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    output = io.StringIO()
    config = dataclasses.replace(SMALL, run_dir=str(folder))
    assert job.train(config, Console(file=output, width=100)) == folder
    return folder, output.getvalue()


def test_run_folder(finished):
    folder, _ = finished
    config = json.loads((folder / "config.json").read_text())
    assert from_dict(config) == dataclasses.replace(SMALL, run_dir=str(folder))
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["jax"] == jax.__version__
    assert versions["cpus"] >= 1
    for figure in ("curves.png", "ics.png"):
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
    assert "Which moved less" in (folder / "report.html").read_text()
    for norm in ("bn", "ubn"):
        for seed in (0, 1):
            rows = read_rows(folder / f"{norm}-seed{seed}" / "train.jsonl")
            assert [row["step"] for row in rows] == list(range(1, UPDATES + 1))
            assert rows[0]["learning_rate"] == 0.0
            assert max(row["learning_rate"] for row in rows) == pytest.approx(0.1)
            rows = read_rows(folder / f"{norm}-seed{seed}" / "ics.jsonl")
            assert len(rows) == 2 * 4  # updates 10 and 20, layers
            rows = read_rows(folder / f"{norm}-seed{seed}" / "eval.jsonl")
            assert [row["step"] for row in rows] == [UPDATES // 2, UPDATES]
            assert all(row["count"] == 360 for row in rows)
            assert ("alpha/head_norm" in rows[-1]) == (norm == "ubn")


def test_both_norms_start_alike_and_see_the_same_images(finished):
    folder, _ = finished
    for seed in (0, 1):
        bn = read_rows(folder / f"bn-seed{seed}" / "train.jsonl")
        ubn = read_rows(folder / f"ubn-seed{seed}" / "train.jsonl")
        # The first update has learning rate 0 and alpha starts at 0: two equal batches.
        for b, u in zip(bn[:2], ubn[:2], strict=True):
            assert b["loss"] == pytest.approx(u["loss"], rel=1e-5)
        assert bn[-1]["loss"] != ubn[-1]["loss"]


def test_tensorboard_has_the_rows(finished):
    folder, _ = finished
    (events,) = (folder / "ubn-seed1" / "tensorboard").glob("events*")
    scalars = {}
    data = events.read_bytes()
    while data:  # Each record: length (8 bytes), its checksum (4), content, its checksum (4).
        length = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        for value in event.summary.value:
            scalars[value.tag, event.step] = value.simple_value
        data = data[16 + length :]
    rows = read_rows(folder / "ubn-seed1" / "train.jsonl")
    for row in rows:
        assert scalars["train/loss", row["step"]] == pytest.approx(row["loss"])
    assert ("eval/alpha/head_norm", UPDATES) in scalars
    for row in read_rows(folder / "ubn-seed1" / "ics.jsonl"):
        assert scalars[f"ics/{row['layer']}/value", row["step"]] == pytest.approx(row["value"])


def test_table(finished):
    folder, output = finished
    for text in ("test accuracy, %", "updates to 97 %", "mean alpha, head_norm", "n = 2 seeds"):
        assert text in output
    for text in (
        "Which moved less",
        "over seeds",
        "Certificates of UnitizedBatchNorm: 16 distances",
        "A measurement on ",
    ):
        assert text in output
    results = json.loads((folder / "summary.json").read_text())["results"]
    accuracies = [100 * r["accuracy"] for r in results if r["norm"] == "ubn"]
    assert f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f}" in output


def test_the_log_says_what_is_done_and_how_large_the_networks_are(finished):
    folder, output = finished
    assert "Compiling 2 of 2: ubn ..." in output
    state = checkpoint_params(folder)
    counts = re.findall(r"(?m)^ *(stem|stage 1|head|all|bytes) +([\d,]+) +([\d,]+)", output)
    table = {name: int(bn.replace(",", "")) for name, bn, _ in counts}
    assert table["all"] == sum(table[name] for name in ("stem", "stage 1", "head")) == state
    assert table["bytes"] == 4 * state


def checkpoint_params(folder):
    """Number of parameters of the network with bn, from its program."""
    config = from_dict(json.loads((folder / "config.json").read_text()))
    dataset = load_dataset(config.data)
    init = build_program(config, "bn", dataset).init
    state = jax.eval_shape(init, jax.random.key(0), dataset.train_images[:128])
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def test_profile_traces_updates(finished):
    (trace,) = (finished[0] / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000


def test_evaluate_reproduces_the_accuracy(finished, capsys):
    folder, _ = finished
    assert evaluate.main([str(folder)]) == 0
    assert capsys.readouterr().out.count("reproduced") == 4


def test_evaluate_reports_a_difference(finished, tmp_path, capsys):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    summary = json.loads((folder / "summary.json").read_text())
    summary["results"][1]["correct"] += 1
    (folder / "summary.json").write_text(json.dumps(summary))
    assert evaluate.main([str(folder)]) == 1
    assert "1 of 4 accuracies were NOT reproduced: ubn, seed 0" in capsys.readouterr().err


def test_evaluate_blames_other_data(finished, tmp_path, capsys):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    data = json.loads((folder / "data.json").read_text())
    data["test_images_sha256"] = "0" * 64
    (folder / "data.json").write_text(json.dumps(data))
    assert evaluate.main([str(folder)]) == 1
    error = capsys.readouterr().err
    assert "was started with other data" in error
    assert "test_images_sha256: 0000" in error
    assert "versions" not in error


def test_evaluate_needs_a_finished_run(tmp_path, capsys):
    assert evaluate.main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "config.json does not exist; give the folder of a finished run" in error


def test_non_finite_loss_stops_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch, capsys):
    dataset = load_dataset("digits")
    dataset.train_images[0] = np.nan
    monkeypatch.setattr(job, "load_dataset", lambda name: dataset)

    def order(seed, epoch, images):
        """The bad image is left over in the first epoch, and comes first in the second."""
        return np.roll(np.arange(images), -1 if epoch == 0 else 0)

    monkeypatch.setattr(pipeline, "data_order", order)
    folder = tmp_path / "run" / "bn-seed0"
    arguments = "--norms bn --seeds 0 --evals-per-epoch 1 --checkpoint-every 1 --optim.epochs 2"
    arguments += " --optim.batch-size 128 --model.blocks 1 --model.widths 4"
    assert train.main([*arguments.split(), "--run-dir", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"error: loss is \S+, the norm of its gradient nan, at update 12 \(norm bn, seed 0\); "
        f"training stopped. Its batch, as the network saw it, is in "
        f"{re.escape(str(folder / 'nonfinite-12.npz'))}: 1 of its 128 images are not finite, the "
        "first is training image 0. The last good checkpoint, of update 11, is in "
        f"{re.escape(str(folder / 'checkpoints'))}. Try a smaller --optim.learning-rate.\n",
        error,
    )
    # What led to it is on record, as JSON that any reader takes.
    rows = read_rows(folder / "train.jsonl")
    assert isinstance(rows[10]["grad_norm"], float)
    assert rows[11]["grad_norm"] == "nan"
    state = checkpoint.restore(folder / "checkpoints", make_template()).state
    assert int(state.step) == 11
    assert checkpoint.all_finite(state.params)
    assert evaluate.main([str(tmp_path / "run")]) == 1
    assert "summary.json does not exist" in capsys.readouterr().err


def test_norms_without_layers_to_probe(tmp_path):
    output = io.StringIO()
    config = dataclasses.replace(SMALL, norms=("none",), seeds=(0,), run_dir=str(tmp_path / "run"))
    folder = job.train(config, Console(file=output, width=100))
    assert output.getvalue().count("none has no normalization layer: it is not probed") == 1
    assert not list(folder.rglob("ics.*"))
    assert "Nothing was probed" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probe": ProbeConfig(images=1500)}, r"`probe.images` \(=1500\) must be at most .*1437"),
        ({"optim": OptimConfig(batch_size=2000)}, r"`batch_size` \(=2000\) must be at most .*1437"),
        ({"evals_per_epoch": 12}, r"`evals_per_epoch` \(=12\) must be at most .*: 11 for"),
    ],
)
def test_values_that_do_not_fit_the_data(tmp_path, change, message):
    config = dataclasses.replace(SMALL, run_dir=str(tmp_path / "run"), **change)
    with pytest.raises(ValueError, match=message):
        job.train(config, Console(file=io.StringIO()))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--norms", "foo"], f"`norm` (='foo') is unknown; choose from {', '.join(NORMS)}."),
        (["--data.dataset", "svhn"], "invalid choice 'svhn'"),
        (["--norm.unit", "metre"], "`unit` (='metre') must be one of 'reference', 'sample'"),
        (["--optim.learningrate", "1"], "Unrecognized options"),
        (["--optim.epochs", "many"], "many"),
    ],
)
def test_command_line_errors_are_short(arguments, message, capsys):
    with pytest.raises(SystemExit) as status:
        train.main(arguments)
    assert status.value.code == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in error
    assert "Traceback" not in error


def test_command_line_error_of_the_run(tmp_path, capsys):
    assert train.main(["--run-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: `run_dir` (=")
    assert error.count("\n") == 1


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_help(program):
    command = [sys.executable, "-m", f"experiments.{program}", "--help"]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    expected = {
        "train": ["--norm.unit", "--norm.alpha-init", "--probe.every", "(default: 64)"],
        "evaluate": ["RUN_FOLDER", "Folder that train wrote"],
    }
    for text in expected[program]:
        assert text in result.stdout
    if program == "train":
        words = {
            word for word in re.split(r"[^\w.-]+", result.stdout) for word in (word, word[:-1])
        }
        assert words >= {*NORMS, *DATASETS, "reference", "sample", "rms", "position"}


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@functools.cache
def make_state(norm="bn"):
    dataset = load_dataset("digits")
    program = build_program(SMALL, norm, dataset)
    return program.init(jax.random.key(0), dataset.train_images[:128])


def make_template(norm="bn"):
    dataset = load_dataset("digits")
    program = build_program(SMALL, norm, dataset)
    return jax.eval_shape(program.init, jax.random.key(0), dataset.train_images[:128])
