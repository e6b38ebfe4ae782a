"""Training batches in a fixed order, from any position in it."""

from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np

Batch = dict[str, jax.Array | np.ndarray]


class Pipeline(Protocol):
    """The training batches of one seed; the same for every norm, whatever was done before.

    Attributes:
        updates: Number of batches of an epoch; images that do not fill one are left out.
    """

    updates: int

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yields the batches of ``epoch`` (from 0): ``image`` ``(n, h, w, c)``, ``label`` ``(n,)``.

        It starts at the first batch, or in the epoch of the state restored, at the batch that comes
        after that state. Only one epoch may be read at a time.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Returns the position after the last batch that was yielded, ready for JSON."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to a position that ``state`` returned, here or in another process.

        Raises:
            ValueError: If it is a position in another order of images.
        """
        ...

    def close(self) -> None:
        """Stops whatever works in the background; may be called twice."""
        ...


def data_order(seed: int, epoch: int, images: int) -> np.ndarray:
    """Returns the order of the training images: it depends on seed and epoch, not on the norm."""
    return np.random.default_rng([seed, epoch]).permutation(images)


class Position:
    """Where a pipeline is: what its state and the checks of a restored one have in common.

    Args:
        images: Number of training images.
        seed: Seed of the order.
        batch_size: Images per update, over all hosts.
    """

    def __init__(self, images: int, seed: int, batch_size: int) -> None:
        """Starts before the first batch of the first epoch."""
        self.order = {"images": images, "seed": seed, "batch_size": batch_size}
        self.updates = images // batch_size
        self.epoch, self.batch = 0, 0

    def enter(self, epoch: int) -> int:
        """Returns the batch of ``epoch`` to go on with: 0 unless this is the current epoch."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0
        return self.batch

    def state(self) -> dict[str, Any]:
        """Returns the order of the images and the number of epochs and batches done."""
        return {**self.order, "epoch": self.epoch, "batch": self.batch}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to the position of ``state``, if it is one in the same order."""
        for name, value in self.order.items():
            if state.get(name) != value:
                raise ValueError(
                    f"the state of the data has `{name}` {state.get(name)}, but this run {value}: "
                    "the images would come in another order. Resume with the configuration and "
                    "the data that the state was saved with."
                )
        epoch, batch = state.get("epoch", -1), state.get("batch", -1)
        if not (epoch >= 0 and 0 <= batch <= self.updates):
            raise ValueError(
                f"the state of the data is damaged: `epoch` (={epoch}) and `batch` (={batch}) must "
                f"be at least 0, `batch` at most {self.updates}. Use an earlier checkpoint."
            )
        self.epoch, self.batch = epoch, batch


class ArrayPipeline:
    """Batches of images that are in memory: one gather per batch, nothing in the background.

    Args:
        images: ``(n, h, w, c)``.
        labels: ``(n,)``.
        seed: Seed of the order.
        batch_size: Images per update, over all hosts.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, *, seed: int, batch_size: int
    ) -> None:
        """Starts before the first batch of the first epoch."""
        self._images, self._labels = images, labels
        self._seed, self._batch_size = seed, batch_size
        self._position = Position(len(images), seed, batch_size)
        self.updates = self._position.updates

    def batches(self, epoch: int) -> Iterator[Batch]:
        """See ``Pipeline``."""
        order = data_order(self._seed, epoch, len(self._images))
        for i in range(self._position.enter(epoch), self.updates):
            indices = order[i * self._batch_size : (i + 1) * self._batch_size]
            self._position.batch = i + 1
            yield {"image": self._images[indices], "label": self._labels[indices]}

    def state(self) -> dict[str, Any]:
        """See ``Pipeline``."""
        return self._position.state()

    def restore(self, state: dict[str, Any]) -> None:
        """See ``Pipeline``."""
        self._position.restore(state)

    def close(self) -> None:
        """See ``Pipeline``; there is nothing to stop."""
