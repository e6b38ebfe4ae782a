"""The batch that is written to a file is the one that the update saw."""

import dataclasses
import re
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.common.errors import NonFiniteLossError, Preempted
from experiments.data.pipeline import data_order
from experiments.training import checkpoint, loop, steps
from experiments.training.nonfinite import dump
from experiments.training.preemption import Preemption
from experiments.training.record import Recorder
from experiments.training.run import run_folder, start
from tests.experiments.common import storage
from tests.experiments.common.storage import fail_to_write_the_probes_rows
from tests.experiments.jobs import CONFIG, DATASET, StopAfter, program, template, train_here


@pytest.mark.parametrize("step", [4, 15])
def test_the_batch_is_that_of_the_update(tmp_path, step):
    """The file's images, not shifted again, give the loss that was recorded."""
    with ExitStack() as stack:
        run = start(CONFIG, program(), DATASET, 0, tmp_path, stack)
        for epoch, end in [(0, 6), (0, 11), (1, 17)]:
            loop.train_stretch(run, epoch, end, loop.Watch(Preemption()))
            if end >= step:
                break
        path = run.folder / f"nonfinite-{step}.npz"
        message = f"x at update {step} .* is in .*{path.name}: all its pixels are finite. The last"
        with pytest.raises(NonFiniteLossError, match=message):
            run.fail("x", step)
    with np.load(path) as file:
        batch = dict(file)
    assert (batch["step"], batch["seed"]) == (step, 0)
    assert batch["norm"] == "ubn"
    # The order of the data, and the state before the update, without the loop.
    order = np.concatenate([data_order(0, i, len(DATASET.train_images))[:1408] for i in (0, 1)])
    batches = order.reshape(-1, 128)
    np.testing.assert_array_equal(batch["index"], batches[step - 1])
    np.testing.assert_array_equal(batch["label"], DATASET.train_labels[batches[step - 1]])
    state = program().init(jax.random.key(0), DATASET.train_images[:128])
    for indices in batches[: step - 1]:
        images, labels = DATASET.train_images[indices], DATASET.train_labels[indices]
        state, _ = program().train_step(state, {"image": images, "label": labels})
    plain = jax.jit(partial(steps.train_step, weight_penalty=CONFIG.optim.weight_penalty))
    losses = [
        plain(state, {"image": images, "label": batch["label"]})[1]["loss"]
        for images in (batch["image"], DATASET.train_images[batches[step - 1]])
    ]
    recorded = run.train_rows[step - 1]["loss"]
    assert losses[0] == pytest.approx(recorded, rel=1e-6)
    assert losses[1] != pytest.approx(recorded, rel=1e-6)


def test_what_is_said_of_the_images(tmp_path):
    images = np.zeros((4, 2, 2, 1), np.float32)
    images[2, 0, 0], images[3] = np.nan, np.inf
    batch = {"image": images, "label": np.arange(4)}
    found = dump(tmp_path / "a.npz", batch, {})
    assert found == "2 of its 4 images are not finite, the first is number 2"
    found = dump(tmp_path / "a.npz", {**batch, "index": np.array([9, 8, 7, 6])}, {})
    assert found == "2 of its 4 images are not finite, the first is training image 7"
    with np.load(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file["image"], images)


# Noise cannot be compressed: the dump is longer than any file of a checkpoint.
IMAGES = np.random.default_rng(0).normal(size=DATASET.train_images.shape).astype(np.float32)
IMAGES[:, 4, 4] = np.nan
NAN = dataclasses.replace(DATASET, train_images=IMAGES)


def train_badly(folder: Path) -> str:
    """The second epoch has images that are not finite; returns the error."""
    with pytest.raises(Preempted):
        train_here(folder, StopAfter(18))  # Both evaluations done, and the checkpoint with them.
    with pytest.raises(NonFiniteLossError) as caught:
        loop.train_seeds(CONFIG, [program()], NAN, (0,), folder)
    return str(caught.value)


def check(message: str, folder: Path, problem: str) -> None:
    """The error is about the loss, tells of the dump, and the checkpoint that it names is good."""
    run = run_folder(folder, "ubn", 0)
    assert re.match(r"loss is \S+, the norm of its gradient nan, at update 12 \(norm ubn", message)
    assert (
        "training stopped. Its batch, as the network saw it, could not be written to "
        f"{run / 'nonfinite-12.npz'}: {problem}. The last good checkpoint, of update 11, is in "
        f"{run / 'checkpoints'}. Try a smaller --optim.learning-rate."
    ) in message
    assert not list(run.glob("nonfinite*"))
    assert checkpoint.restore(run / "checkpoints", template()).step == 11


def test_a_dump_that_cannot_be_written(tmp_path):
    """Wherever the tests run: no file may be as long as the dump."""
    with storage.longest_file(25_000):
        message = train_badly(tmp_path)
    check(message, tmp_path, "File too large")


def test_rows_of_the_probe_that_cannot_be_written(tmp_path, monkeypatch):
    """They come before the losses: the error is still the one about the loss."""
    fail_to_write_the_probes_rows(monkeypatch, 15)
    assert train_badly(tmp_path).startswith("loss is")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk(tmp_path, monkeypatch):
    """Not even the rows can be written: the error is still the one about the loss."""
    write = Recorder.write

    def fill_and_write(self, kind, rows):
        if kind == "train" and rows and rows[-1]["step"] > 12:
            storage.fill(disk)
        write(self, kind, rows)

    with storage.small_disk(tmp_path / "disk", "2m") as disk:
        monkeypatch.setattr(Recorder, "write", fill_and_write)
        message = train_badly(disk / "run")
        check(message, disk / "run", "No space left on device")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_neither_dump_nor_checkpoint_can_be_written(tmp_path):
    """The save that was under way fails, too: the error is still the one about the loss."""
    with ExitStack() as stack:
        run = start(CONFIG, program(), DATASET, 0, tmp_path, stack)
        loop.train_stretch(run, 0, 6, loop.Watch(Preemption()))
        with storage.longest_file(5000):
            run.save()
            with pytest.raises(NonFiniteLossError) as caught:
                run.fail("x", 6)
    folder = run.folder / "checkpoints"
    assert (
        f"could not be written to {run.folder / 'nonfinite-6.npz'}: File too large. The last good "
        f"checkpoint, of update 0, is in {folder}. (The checkpoint of update 6 could not be "
        f"written in {folder}: File too large"
    ) in str(caught.value)
    assert checkpoint.restore(folder, template()).step == 0
