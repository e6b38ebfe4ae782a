"""ImageNet, read and decoded in the background by grain."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from experiments.config.data import DataConfig
from experiments.data.dataset import Dataset
from experiments.data.images import (
    EVAL_MARGIN,
    BadImageError,
    BadImages,
    center_crop,
    check_label,
    decode_rgb,
    need,
    random_resized_crop,
)
from experiments.data.pipeline import Batch, Pipeline, Place, Position, host_share
from experiments.data.prepare.records import Example, Split
from experiments.data.scaling import IMAGENET

_MOST_THREADS = 16  # More do not help: they share one interpreter.
_MOST_BAD = 100  # Bad images in a row that training puts up with.
# From the index of an image and the image to what the network sees of it.
Crop = Callable[[int, np.ndarray], np.ndarray]


def load_imagenet(config: DataConfig) -> "RecordDataset":
    """Return ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 validation images.

    Nothing is read yet. The labelled validation images are the test images, as is customary.

    Raises:
        ValueError: If it is not prepared, or its description is damaged.

    References:
        O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015,
        https://arxiv.org/abs/1409.0575.
    """
    train = Split(config.dataset, config.data_dir, "train")
    test = Split(config.dataset, config.data_dir, "validation")
    size = config.image_size or 224
    return RecordDataset(
        name=(
            f"ImageNet 2012 ({len(train):,} training and {len(test):,} validation images, "
            f"{size}x{size})"
        ),
        num_classes=train.num_classes,
        scaling=IMAGENET,
        max_shift=config.max_shift or 0,
        train=train,
        test=test,
        size=size,
        mirror=config.flip is not False,
        convert=config.convert_images is not False,
        bad=BadImages(config.on_bad_image),
        threads=config.threads or min(_cpus(), _MOST_THREADS),
    )


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Not every system tells.
        return os.cpu_count() or 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RecordDataset(Dataset):
    """Images that are read, decoded and cropped when they are needed.

    In the background, ``threads`` batches at most are being made or wait: that bounds the memory.

    Attributes:
        train: The training images.
        test: The test images.
        size: Side of the images of a batch, pixels.
        mirror: Whether training images are mirrored at random (here, not on the device).
        convert: Whether images that are not 8-bit RGB are converted to it.
        threads: Number of threads that read and decode.
    """

    train: Split
    test: Split
    size: int
    mirror: bool
    convert: bool
    threads: int

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return len(self.train)

    @property
    def test_size(self) -> int:
        """Number of test images."""
        return len(self.test)

    def example(self, batch_size: int) -> Batch:
        """See ``Dataset``."""
        return {
            "image": np.zeros((batch_size, self.size, self.size, 3), np.uint8),
            "label": np.zeros(batch_size, np.int32),
        }

    def pipeline(
        self,
        seed: int,
        batch_size: int,
        host: int = 0,
        hosts: int = 1,
        place: Place | None = None,
    ) -> Pipeline:
        """See ``Dataset``; without ``place``, batches go to JAX's default device."""

        def read(epoch: int, rows: np.ndarray) -> Any:
            return self.in_background(rows, lambda row: self.train_batch(seed, epoch, row))

        position = Position(self.train_size, seed, batch_size, host, hosts)
        return Pipeline(position, read, place or jax.device_put)

    def test_batches(self, batch_size: int, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
        """See ``Dataset``; an image that cannot be used has weight 0 where it may be skipped."""
        share = host_share(batch_size, host, hosts)
        padded = -(-self.test_size // batch_size) * batch_size
        rows = np.arange(padded).reshape(-1, batch_size)[:, share]
        batches = self.in_background(rows, self.test_batch)
        try:
            yield from batches
        finally:
            batches.close()

    def record(self) -> dict[str, Any]:
        """See ``Dataset``; with checksums of what tells the files apart, see ``Split.sha256``."""
        return super().record() | {
            "flip": self.mirror,
            "crop": "random part, resized",
            "train_files_sha256": self.train.sha256(),
            "test_files_sha256": self.test.sha256(),
        }

    def in_background(self, rows: np.ndarray, make: Callable[[np.ndarray], Batch]) -> Any:
        """Return an iterator over ``make(row)`` for each row, in order, made ahead by threads."""
        grain, cv2 = need("grain"), need("cv2")
        # There are threads enough: those of OpenCV would only stand in their way.
        cv2.setNumThreads(0)
        # One batch is made by one thread. The buffer must have room for every thread's.
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=self.threads)
        return iter(grain.MapDataset.source(rows).map(make).to_iter_dataset(options))

    def train_batch(self, seed: int, epoch: int, row: np.ndarray) -> Batch:
        """Return the training images of the indices ``row``, cropped and mirrored at random.

        What is random about an image depends on the seed, the epoch and the image alone. The place
        of a bad image is taken by the next one of the data set that is good.
        """
        cv2 = need("cv2")

        def crop(index: int, image: np.ndarray) -> np.ndarray:
            # Not [seed, epoch, index]: with index 0 that would be the stream of the order.
            rng = np.random.default_rng([seed, epoch, index + 1])
            image = random_resized_crop(rng, image, self.size)
            # A tenth of the time of image[:, ::-1], which would be a sixth of all.
            return cv2.flip(image, 1) if self.mirror and rng.random() < 0.5 else image

        batch = self.example(len(row))
        for i, example in enumerate(self.train.read(row.tolist())):
            index = int(row[i])
            for _ in range(_MOST_BAD):
                if self._fill(batch, i, self.train, index, example, crop):
                    break
                index = (index + 1) % self.train_size
                (example,) = self.train.read([index])
            else:
                raise ValueError(
                    f"no image is left: {self.bad.reasons()[-1]} The {_MOST_BAD} before it are "
                    "bad, too."
                )
        return batch

    def test_batch(self, row: np.ndarray) -> Batch:
        """Return the middle of the test images of the indices ``row``; weight 0 past the last."""

        def crop(index: int, image: np.ndarray) -> np.ndarray:
            del index
            return center_crop(image, self.size, EVAL_MARGIN)

        weight = np.zeros(len(row), np.float32)
        batch = self.example(len(row)) | {"weight": weight}
        present: Sequence[int] = row[row < self.test_size].tolist()
        for i, example in enumerate(self.test.read(present)):
            weight[i] = self._fill(batch, i, self.test, present[i], example, crop)
        return batch

    def _fill(
        self, batch: Batch, i: int, split: Split, index: int, example: Example, crop: Crop
    ) -> bool:
        """Put an image into place ``i`` of a batch; False if it is bad and may be skipped."""
        try:
            label = check_label(example.label, split.num_classes, example.where)
            # Some of the original files have a few stray bytes, which decoders pass over.
            image = decode_rgb(example.content, example.where, self.convert, strict=False)
        except BadImageError as error:
            self.bad.add(error)
            return False
        batch["image"][i] = crop(index, image)
        batch["label"][i] = label
        return True
