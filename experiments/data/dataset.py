"""What training reads: images in memory or as records, and how they become a network's input."""

import dataclasses
import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.augment import WHOLE, Part, random_flip, random_shift
from experiments.data.images import BadImages
from experiments.data.pipeline import Batch, Pipeline, Place, Position, eval_batches, gather
from experiments.data.recombination import random_copies, random_pairs
from experiments.data.scaling import Scaling


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset(ABC):
    """A classification data set.

    Attributes:
        name: What the tables and figures call it, with its split.
        num_classes: Number of classes.
        classes: Their names, in the order of the labels, where they are known.
        notes: What a user should know of how it was read.
        scaling: How a batch's images become the network's input; None if they are it already.
        background: The scaled value that shifted images are filled with.
        flip: Whether augmentation mirrors half of the images.
        max_shift: Largest shift of the augmentation, pixels.
        recombination: What else the augmentation does, see ``recombination``.
        black_white: Black and white in a batch's images.
        bad: The images that cannot be used, as found so far: those of a data set in memory are all
            found before training.
    """

    name: str
    num_classes: int
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    scaling: Scaling | None = None
    background: float = 0.0
    flip: bool = False
    max_shift: int = 0
    recombination: tuple[str, ...] = ()
    black_white: tuple[float, float] = (0.0, 255.0)
    bad: BadImages = dataclasses.field(default_factory=lambda: BadImages("error"))

    @property
    @abstractmethod
    def train_size(self) -> int:
        """Number of training images."""

    @property
    @abstractmethod
    def test_size(self) -> int:
        """Number of test images."""

    @abstractmethod
    def example(self, batch_size: int) -> Batch:
        """Return a batch of the right shapes and dtypes: ``image`` and ``label``."""

    @abstractmethod
    def pipeline(
        self,
        seed: int,
        batch_size: int,
        host: int = 0,
        hosts: int = 1,
        place: Place | None = None,
    ) -> Pipeline:
        """Return the training batches of ``seed``: on each host its part of every batch.

        Args:
            seed: Seed of the order (and of random crops).
            batch_size: Images per update, over all hosts; a multiple of ``hosts``.
            host: This host, from 0.
            hosts: Number of hosts.
            place: Brings a batch to the devices; None is the data set's choice.
        """

    @abstractmethod
    def test_batches(self, batch_size: int, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
        """Yield all test images once, with ``weight`` 1, and padding with ``weight`` 0."""

    def standardize(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Return the input of the network for the images of a batch; on the device."""
        x = jnp.asarray(images)
        if self.scaling is None:
            return x
        return (x.astype(jnp.float32) - self.scaling.mean) / self.scaling.divisor

    def augment(
        self, key: jax.Array, images: jax.Array | np.ndarray, part: Part = WHOLE
    ) -> jax.Array:
        """Return the same for training: flipped, shifted, recombined at random; on the device."""
        standardized = self.standardize(images)

        def copy(key: jax.Array) -> jax.Array:
            x = standardized
            if self.flip:
                x = random_flip(jax.random.fold_in(key, 1), x, part)
            return random_shift(key, x, self.max_shift, self.background, part)

        x = copy(key)
        if "apr-s" in self.recombination:
            other = copy(jax.random.fold_in(key, 2))
            x = random_copies(jax.random.fold_in(key, 3), x, other, part)
        if "apr-p" in self.recombination:
            x = random_pairs(jax.random.fold_in(key, 4), x)
        return x

    def record(self) -> dict[str, Any]:
        """Return what a run's record says about its data, ready for JSON.

        Names that end in ``_sha256`` tell the content: a run is resumed with the same only.
        """
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            **({} if self.classes is None else {"classes": list(self.classes)}),
            "train_size": self.train_size,
            "test_size": self.test_size,
            "flip": self.flip,
            "max_shift": self.max_shift,
            **({"recombination": list(self.recombination)} if self.recombination else {}),
            "bad_images_count": len(self.bad.reasons()),
            "bad_images": list(self.bad.reasons()),
        }


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ArrayDataset(Dataset):
    """A data set in memory, or in files that are mapped into it.

    Attributes:
        train_images: ``(n, h, w, c)``: uint8, or float32 if ``scaling`` is None.
        train_labels: ``(n,)`` int32.
        test_images: ``(m, h, w, c)``.
        test_labels: ``(m,)`` int32.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return len(self.train_images)

    @property
    def test_size(self) -> int:
        """Number of test images."""
        return len(self.test_images)

    def example(self, batch_size: int) -> Batch:
        """See ``Dataset``."""
        shape = (batch_size, *self.train_images.shape[1:])
        return {
            "image": np.zeros(shape, self.train_images.dtype),
            "label": np.zeros(batch_size, self.train_labels.dtype),
        }

    def pipeline(
        self,
        seed: int,
        batch_size: int,
        host: int = 0,
        hosts: int = 1,
        place: Place | None = None,
    ) -> Pipeline:
        """See ``Dataset``; without ``place``, batches stay in the host's memory."""

        def read(epoch: int, rows: np.ndarray) -> Iterator[Batch]:
            del epoch
            return gather(self.train_images, self.train_labels, rows)

        position = Position(self.train_size, seed, batch_size, host, hosts)
        return Pipeline(position, read, place)

    def test_batches(self, batch_size: int, host: int = 0, hosts: int = 1) -> Iterator[Batch]:
        """See ``Dataset``."""
        return eval_batches(self.test_images, self.test_labels, batch_size, host, hosts)

    def record(self) -> dict[str, Any]:
        """See ``Dataset``; with checksums of all images and labels."""
        return super().record() | self._checksums

    @functools.cached_property
    def _checksums(self) -> dict[str, str]:
        names = ("train_images", "train_labels", "test_images", "test_labels")
        return {f"{name}_sha256": _sha256(getattr(self, name)) for name in names}


def in_memory(dataset: Dataset, option: str, value: Any) -> ArrayDataset:
    """Return a data set that is in memory, for an option that needs all of it at once.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(dataset, ArrayDataset):
        raise ValueError(
            f"`{option}` (={value}) is not possible for {dataset.name}, which is read while it "
            "trains. Choose a data set in memory, or leave the option out."
        )
    return dataset


def _sha256(array: np.ndarray) -> str:
    """Return the SHA-256 of dtype, shape and content, hexadecimal; read without a copy."""
    digest = hashlib.sha256(f"{array.dtype} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
