"""Training that met a number that is not finite: the batch it met it in, and where to look."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.files import replacing
from experiments.data import Dataset
from experiments.training.steps import Batch


def batch_of(dataset: Dataset, seed: int, batch_size: int, step: int) -> Batch:
    """Return the batch of update ``step`` (from 1), and as ``index`` which images it has.

    Args:
        dataset: Where the batches come from.
        seed: Seed of their order.
        batch_size: Images per batch.
        step: The update.
    """
    with closing(dataset.pipeline(seed, batch_size)) as pipeline:
        epoch, batch = divmod(step - 1, pipeline.updates)
        pipeline.restore({**pipeline.state(), "epoch": epoch, "batch": batch})
        return {**next(pipeline.batches(epoch)), "index": pipeline.indices(epoch)[batch]}


def dump(path: Path, batch: Batch, about: dict[str, int | str]) -> str:
    """Write the batch of an update to ``path``, and return what is wrong with its images.

    Args:
        path: An ``.npz``, of all that is in ``batch`` and ``about``.
        batch: ``image``, as the network saw them, ``label`` and, where it is known, ``index``.
        about: Update, seed and whatever else identifies it.
    """
    content: dict[str, Any] = {**batch, **about}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **content)
    images = np.asarray(batch["image"], np.float32)
    bad = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))
    if not len(bad):
        return "all its pixels are finite"
    which = f"training image {batch['index'][bad[0]]}" if "index" in batch else f"number {bad[0]}"
    return f"{len(bad)} of its {len(images)} images are not finite, the first is {which}"
