"""Training batches in a fixed order, from any position in it."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

Batch = dict[str, jax.Array | np.ndarray]
Place = Callable[[Batch], Batch]


def data_order(seed: int, epoch: int, images: int) -> np.ndarray:
    """Return the order of the training images: it depends on seed and epoch, not on the norm."""
    return np.random.default_rng([seed, epoch]).permutation(images)


def host_share(batch_size: int, host: int, hosts: int) -> slice:
    """Return which images of a batch are those of one host: hosts follow each other in it.

    Args:
        batch_size: Images of the batch, over all hosts.
        host: This host, from 0.
        hosts: Number of hosts.

    Raises:
        ValueError: If the hosts would not have the same number of images.

    Example:
        >>> host_share(128, host=1, hosts=4)
        slice(32, 64, None)
    """
    if batch_size % hosts:
        below = batch_size // hosts * hosts
        nearest = " or ".join(str(size) for size in (below, below + hosts) if size)
        raise ValueError(
            f"`batch_size` (={batch_size}) must be divisible by the number of hosts: {hosts}. The "
            f"nearest that is: {nearest}."
        )
    share = batch_size // hosts
    return slice(host * share, (host + 1) * share)


class Position:
    """Where a pipeline is in which order: what all pipelines share.

    The order depends on neither the host nor their number, so a run can go on with another number
    of hosts.

    Args:
        images: Number of training images.
        seed: Seed of the order.
        batch_size: Images per update, over all hosts.
        host: This host, from 0.
        hosts: Number of hosts.
    """

    def __init__(
        self, images: int, seed: int, batch_size: int, host: int = 0, hosts: int = 1
    ) -> None:
        """Start before the first batch of the first epoch."""
        self.order = {"images": images, "seed": seed, "batch_size": batch_size}
        self.updates = images // batch_size
        self.epoch, self.batch = 0, 0
        self._share = host_share(batch_size, host, hosts)

    def indices(self, epoch: int) -> np.ndarray:
        """Return the images of this host in each batch: ``(updates, batch_size / hosts)``."""
        images, batch_size = self.order["images"], self.order["batch_size"]
        order = data_order(self.order["seed"], epoch, images)[: self.updates * batch_size]
        return order.reshape(self.updates, batch_size)[:, self._share]

    def enter(self, epoch: int) -> int:
        """Return the batch of ``epoch`` to go on with: 0 unless this is the current epoch."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0
        return self.batch

    def state(self) -> dict[str, Any]:
        """Return the order of the images and the number of epochs and batches done."""
        return {**self.order, "epoch": self.epoch, "batch": self.batch}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to the position of ``state``, if it is one in the same order."""
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


class Pipeline:
    """The training batches of one seed; the same for every norm, whatever was done before.

    Args:
        position: Order of the images, and where in it to start.
        read: From an epoch and the images of each batch, ``(batches, n)``, to the batches; an
            iterator with a ``close`` method.
        place: Brings a batch to the devices, one batch before it is needed; None leaves it in the
            host's memory, for ``jit`` to copy.

    Attributes:
        updates: Number of batches of an epoch; images that do not fill one are left out.
    """

    def __init__(
        self,
        position: Position,
        read: Callable[[int, np.ndarray], Any],
        place: Place | None = None,
    ) -> None:
        """Read nothing yet."""
        self._position, self._read, self._place = position, read, place
        self._batches: Any = None
        self.updates = position.updates

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of ``epoch`` (from 0): ``image`` ``(n, h, w, c)``, ``label`` ``(n,)``.

        It starts at the first batch, or in the epoch of the state restored, at the batch that comes
        after that state. Only one epoch can be read at a time: the one asked for last.
        """
        self.close()
        start = self._position.enter(epoch)
        self._batches = self._read(epoch, self._position.indices(epoch)[start:])
        for batch in _ahead(self._batches, self._place):
            # Counted when it is taken: what was only made ahead is made again after a restart.
            self._position.batch += 1
            yield batch

    def indices(self, epoch: int) -> np.ndarray:
        """Return which training images are in each batch here: ``(updates, n)``."""
        return self._position.indices(epoch)

    def state(self) -> dict[str, Any]:
        """Return the position after the last batch that was yielded, ready for JSON.

        It is the same on all hosts, whatever their number.
        """
        return self._position.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go to a position that ``state`` returned, here or in another process.

        Raises:
            ValueError: If it is a position in another order of images.
        """
        self.close()
        self._position.restore(state)

    def close(self) -> None:
        """Stop whatever works in the background; may be called twice."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def _ahead(batches: Iterator[Batch], place: Place | None) -> Iterator[Batch]:
    if place is None:
        yield from batches
        return
    waiting: Batch | None = None
    for batch in batches:
        placed = place(batch)
        if waiting is not None:
            yield waiting
        waiting = placed
    if waiting is not None:
        yield waiting


def gather(images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Iterator[Batch]:
    """Yield batches of images that are in memory.

    Args:
        images: ``(n, h, w, c)``.
        labels: ``(n,)``.
        rows: Images of each batch, ``(batches, batch_size)``.
    """
    for row in rows:
        # asarray: rows of a mapped file are in memory, but still of the file's type.
        yield {"image": np.asarray(images[row]), "label": labels[row]}


def eval_batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, host: int = 0, hosts: int = 1
) -> Iterator[Batch]:
    """Yield every image once; the last batch is padded, with weight 0, to the same shape.

    Args:
        images: ``(n, h, w, c)``.
        labels: ``(n,)``.
        batch_size: Images per batch, over all hosts; need not divide ``n``.
        host: This host, from 0: it gets its part of every batch.
        hosts: Number of hosts.

    Yields:
        ``image``, ``label`` and ``weight`` (1, or 0 for padding).
    """
    share = host_share(batch_size, host, hosts)
    for start in range(0, len(images), batch_size):
        part = slice(start + share.start, min(start + share.stop, start + batch_size))
        image, label = np.asarray(images[part]), labels[part]
        missing = share.stop - share.start - len(image)
        pad = [(0, missing)]
        yield {
            "image": np.pad(image, pad + [(0, 0)] * (images.ndim - 1)),
            "label": np.pad(label, pad),
            "weight": np.pad(np.ones(len(image), np.float32), pad),
        }
