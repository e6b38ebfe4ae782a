"""The batch that is written to a file is the one that the update saw."""

from contextlib import ExitStack
from functools import partial

import jax
import numpy as np
import pytest

from experiments import loop, steps
from experiments.data.pipeline import data_order
from experiments.nonfinite import NonFiniteLossError, dump
from experiments.preemption import Preemption
from experiments.run import start
from tests.experiments.jobs import CONFIG, DATASET, program


@pytest.mark.parametrize("step", [4, 15])
def test_the_batch_is_that_of_the_update(tmp_path, step):
    """The file's images, not shifted again, give the loss that was recorded."""
    with ExitStack() as stack:
        run = start(CONFIG, program(), DATASET, 0, tmp_path, stack)
        for epoch, end in [(0, 6), (0, 11), (1, 17)]:
            loop._train_stretch(run, epoch, end, Preemption())
            if end >= step:
                break
        path = run.folder / f"nonfinite-{step}.npz"
        message = f"x at update {step} .* is in .*{path.name}: all its pixels are finite. The last"
        with pytest.raises(NonFiniteLossError, match=message):
            run.fail("x", step)
    batch = np.load(path)
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
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")["image"], images)
