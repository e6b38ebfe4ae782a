"""A finished run's networks on corrupted test images, with and without recalibrated statistics."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.analysis.corruptions import CLEAN
from experiments.data import Batch, Dataset
from experiments.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from experiments.training import steps
from experiments.training.restored import Restored
from unitnorm_jax.contrib.noise_aware_batch_norm import collect_statistics, recalibrate

# An image as it is stands in the place of a corruption, with severity 0.
CASES = ((CLEAN, 0), *((name, severity) for name in CORRUPTIONS for severity in SEVERITIES))


class Row(NamedTuple):
    """One network on all test images.

    Attributes:
        norm: Name of its norm.
        seed: Of its training.
        corruption: Of the images; or "clean".
        severity: From 1 to 5; 0 for clean images.
        statistics: "training": the running statistics of training; "recalibrated": those of the
            images themselves, all of them, without labels.
        correct: Images that were classified correctly.
        images: Of the test set.
    """

    norm: str
    seed: int
    corruption: str
    severity: int
    statistics: str
    correct: float
    images: float


def corrupted(dataset: Dataset, batch: Batch, case: tuple[str, int], seed: int, first: int) -> Any:
    """Return the images of a batch as they are under a corruption, in the batch's units."""
    images = batch["image"]
    if case[0] == CLEAN:
        return images
    black, white = dataset.black_white
    values = (np.asarray(images, np.float32) - np.float32(black)) / np.float32(white - black)
    found = corrupt(*case, values, seed=seed, first=first) * np.float32(white - black)
    found += np.float32(black)
    whole = np.issubdtype(images.dtype, np.integer)
    return (np.round(found) if whole else found).astype(images.dtype)


def measure(
    networks: Iterable[Restored],
    dataset: Dataset,
    seed: int,
    done: Callable[[str], None] = lambda what: None,
    cases: Sequence[tuple[str, int]] = CASES,
) -> Iterator[Row]:
    """Yield a row for each network and corruption, and another where it keeps statistics.

    Args:
        networks: Final states of a run.
        dataset: Its images.
        seed: Of the corruptions.
        done: Told before each network and corruption.
        cases: Corruptions and severities.
    """
    collects: dict[str, Any] = {}
    for one in networks:
        program = one.program
        if one.norm not in collects:
            collects[one.norm] = jax.jit(partial(collect_statistics, program.model, train=False))
        keeps = bool(one.variables.get("batch_stats"))
        plain = jax.tree.map(np.asarray, one.variables)  # for batches that are on one device
        for case in cases:
            done(f"{one.norm}, seed {one.seed}: {case[0]} {case[1] or ''}".rstrip())
            row = partial(Row, one.norm, one.seed, *case)
            collected: list[Any] = []
            see = partial(collects[one.norm], plain) if keeps else None
            batches = _batches(dataset, program.eval_step.batch_size, case, seed)
            seen = _seen(batches, dataset, see, collected)
            found = steps.evaluate(program.eval_step, one.state, seen)
            yield row("training", found["correct"], found["count"])
            if not keeps:
                continue
            stats = recalibrate(plain, collected)["batch_stats"]
            state = one.state.replace(batch_stats=jax.tree.map(np.asarray, stats))
            batches = _batches(dataset, program.eval_step.batch_size, case, seed)
            found = steps.evaluate(program.eval_step, state, batches)
            yield row("recalibrated", found["correct"], found["count"])


def _batches(dataset: Dataset, size: int, case: tuple[str, int], seed: int) -> Iterator[Batch]:
    for i, batch in enumerate(dataset.test_batches(size)):
        yield batch | {"image": corrupted(dataset, batch, case, seed, i * size)}


def _seen(
    batches: Iterator[Batch], dataset: Dataset, see: Any, collected: list[Any]
) -> Iterator[Batch]:
    """Yield the batches, and collect the statistics of their images, without the padding."""
    for batch in batches:
        if see is not None:
            whole = batch["image"][: int(np.sum(batch["weight"]))]
            collected.append(see(dataset.standardize(whole)))
        yield batch
