"""How fast each input pipeline is, and how long a training step waits for it."""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.records import Record, write_records
from experiments.config.data import DataConfig
from experiments.config.experiment import ModelConfig, OptimConfig, TrainConfig
from experiments.data import ArrayDataset, Batch, Dataset, load_dataset
from experiments.data.imagenet import RecordDataset
from experiments.data.images import need
from experiments.data.pipeline import Pipeline, Position
from experiments.data.scaling import make_scaling, pixel_moments
from experiments.training.program import build_program

_LONG = 1 << 20  # Images of an epoch that does not end while it is timed.
_FILES = 512  # Different JPEG files, 55 MB: more than any cache of a processor.


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured for one pipeline and model.

    Attributes:
        pipeline: What the pipeline is.
        images: Size of the images, and of a batch.
        step: What trains on it.
        pipeline_rate: Images per second that the pipeline makes with nothing else to do, augmented
            and on the device.
        step_rate: Images per second that the training step takes of one batch that is there.
        both_rate: Images per second of the training loop.
        waiting: Share of the time that a step that waits for each result (so at least the share
            that training does) waits for its batch.
    """

    pipeline: str
    images: str
    step: str
    pipeline_rate: float
    step_rate: float
    both_rate: float
    waiting: float


def digits() -> Dataset:
    """Return the data set of ``make train``."""
    return load_dataset("digits")


def cifar() -> Dataset:
    """Return random pixels in the form, size and number of CIFAR-10's."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50_000, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 50_000).astype(np.int32)
    return ArrayDataset(
        name="CIFAR-10",
        num_classes=10,
        scaling=make_scaling("channel-std", *pixel_moments(images), "CIFAR-10"),
        flip=True,
        max_shift=4,
        train_images=images,
        train_labels=labels,
        test_images=images[:1000],
        test_labels=labels[:1000],
    )


def imagenet(root: Path, size: int = 224, threads: int | None = None) -> RecordDataset:
    """Return records of JPEG files of the size of ImageNet's: 500x375 pixels, about 110 kB."""
    splits = {"train": _jpegs(_FILES, "train"), "validation": _jpegs(8, "val")}
    write_records(root, "imagenet2012", splits, 1000)
    config = DataConfig(
        dataset="imagenet2012", data_dir=str(root), image_size=size, threads=threads
    )
    dataset = load_dataset(config)
    assert isinstance(dataset, RecordDataset)
    return dataset


def _jpegs(count: int, prefix: str) -> Iterator[Record]:
    cv2 = need("cv2")
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(smooth + rng.normal(0, 13, smooth.shape), 0, 255).astype(np.uint8)
        content = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 93])[1].tobytes()
        yield f"{prefix}_{i}.JPEG", content, i % 1000


def _pipeline(dataset: Dataset, batch_size: int) -> Pipeline:
    """Return the data set's pipeline; records come again and again in one endless epoch."""
    if not isinstance(dataset, RecordDataset):
        return dataset.pipeline(0, batch_size)

    def read(epoch: int, rows: np.ndarray) -> Any:
        make = lambda row: dataset.train_batch(0, epoch, row % dataset.train_size)  # noqa: E731
        return dataset.in_background(rows, make)

    return Pipeline(Position(_LONG, 0, batch_size), read, jax.device_put)


def measure(
    name: str,
    dataset: Dataset,
    model: ModelConfig,
    batch_size: int,
    seconds: float,
    imitated: float | None = None,
) -> Row:
    """Measure one pipeline and the training of one model on it.

    Args:
        name: What the pipeline is called.
        dataset: The data set.
        model: The network; it is trained with unitized batch normalization.
        batch_size: Images per update.
        seconds: How long to measure each of the four numbers.
        imitated: Images per second of an accelerator that trains instead: it takes its time, but
            none of this processor's. None trains here.
    """
    example = dataset.example(batch_size)
    augment = jax.jit(dataset.augment)
    if imitated is None:
        train, network = _train(dataset, model, batch_size)
    else:
        train, network = _imitate(batch_size / imitated), f"{imitated:g} images/s, imitated"
    with closing(_pipeline(dataset, batch_size)) as pipeline:
        batches = itertools.chain.from_iterable(map(pipeline.batches, itertools.count()))
        alone = _rate(lambda: augment(jax.random.key(0), next(batches)["image"]), seconds)
        fixed = jax.device_put(next(batches))
        taken = _rate(lambda: train(fixed), seconds)
        both = _rate(lambda: train(next(batches)), seconds)
        waiting = _waiting(batches, train, seconds)
    h, w = example["image"].shape[1:3]
    return Row(
        pipeline=name,
        images=f"{h}x{w}, {batch_size}",
        step=network,
        pipeline_rate=alone * batch_size,
        step_rate=taken * batch_size,
        both_rate=both * batch_size,
        waiting=waiting,
    )


def _train(
    dataset: Dataset, model: ModelConfig, batch_size: int
) -> tuple[Callable[[Batch], Any], str]:
    config = TrainConfig(
        norms=("ubn",), evals_per_epoch=1, model=model, optim=OptimConfig(batch_size=batch_size)
    )
    program = build_program(config, "ubn", dataset)
    state = program.init(jax.random.key(0), dataset.example(batch_size)["image"])

    def train(batch: Batch) -> Any:
        nonlocal state
        state, metrics = program.train_step(state, batch)
        return metrics

    return train, f"ResNet, blocks {' '.join(map(str, model.blocks))}"


def _imitate(seconds: float) -> Callable[[Batch], None]:
    def train(batch: Batch) -> None:
        jax.block_until_ready(batch)
        time.sleep(seconds)

    return train


def _rate(function: Callable[[], Any], seconds: float) -> float:
    """Return calls per second, after one to warm up: as many as fit, and at least two."""
    jax.block_until_ready(function())
    start = time.perf_counter()
    count, result = 0, None
    while count < 2 or time.perf_counter() - start < seconds:
        # One call ahead of the device: else a queue of calls would be left when time is up.
        previous, result = result, function()
        jax.block_until_ready(previous)
        count += 1
    jax.block_until_ready(result)
    return count / (time.perf_counter() - start)


def _waiting(batches: Iterator[Batch], train: Callable[[Batch], Any], seconds: float) -> float:
    """Share of the time in which the next batch is waited for."""
    waited, count = 0.0, 0
    start = time.perf_counter()
    while count < 2 or time.perf_counter() - start < seconds:
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        jax.block_until_ready(train(batch))
        count += 1
    return waited / (time.perf_counter() - start)


CASES = ("digits", "cifar", "imagenet")


def run_case(case: str, seconds: float, accelerators: Sequence[float] = ()) -> list[Row]:
    """Measure one of ``CASES``.

    Args:
        case: Which.
        seconds: How long to measure each number.
        accelerators: Images per second of accelerators to imitate, for ImageNet.

    Raises:
        ValueError: If there is no such case.
    """
    small, paper = ModelConfig(), ModelConfig(blocks=(3, 3, 3))
    if case == "digits":
        return [measure("digits, in memory", digits(), small, 64, seconds)]
    if case == "cifar":
        name = "CIFAR-10, in memory, augmented on the device"
        return [measure(name, cifar(), paper, 128, seconds)]
    if case != "imagenet":
        raise ValueError(f"case (={case!r}) is unknown; choose from {', '.join(CASES)}.")
    with tempfile.TemporaryDirectory() as folder:
        dataset = imagenet(Path(folder))
        name = f"ImageNet, {dataset.threads} threads"
        rows = [measure(name, dataset, small, 16, seconds)]
        rows += [measure(name, dataset, small, 64, seconds, rate) for rate in accelerators]
        return rows
