"""Room for what a run writes: checked before it starts, and a full disk told from other errors."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from experiments.common.reasons import reason, way_out

# What a full or read-only disk, a missing permission, or a path below a file says.
STORAGE_ERRORS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EFBIG,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ENOTDIR,
        errno.ENAMETOOLONG,
    }
)
# Measured, and rounded up: of an update, in the JSON lines and the events; of a checkpoint, many
# small files; and of each of its arrays, what is said of it and its checksum.
ROW_BYTES = 1_000
CHECKPOINT_BYTES = 100_000
ARRAY_BYTES = 2_000


class StorageError(ValueError):
    """The run folder cannot be written, or has not enough room."""


@contextmanager
def storage_errors(
    what: str, advice: str = "Give a --run-dir that can be written."
) -> Iterator[None]:
    """Turn an ``OSError`` of a full or read-only disk into a ``StorageError`` that says so.

    ``{way_out}`` in the advice becomes what to do about the error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        advice = advice.format(way_out=way_out(reason(error)))
        raise StorageError(f"{what}: {reason(error)}. {advice}") from error


def check_room(folder: Path, needed: int) -> None:
    """Raise ``StorageError`` unless ``folder`` can be written and has ``needed`` bytes left.

    Example:
        >>> from pathlib import Path
        >>> check_room(Path("."), 1000)
    """
    probe = folder / ".probe.tmp"
    with storage_errors(f"run folder {folder} cannot be written"):
        try:
            with probe.open("wb") as file:
                file.write(bytes(4096))  # A full disk lets one make a file, but not fill it.
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StorageError(
            f"the run needs about {needed / 1e6:.1f} MB in {folder}, but only {free / 1e6:.1f} MB "
            "are free. Make room, give a --run-dir on another disk, or keep fewer checkpoints "
            "(--keep-checkpoints)."
        )


def needed_bytes(states: list[Any], seeds: int, keep: int, updates: int) -> int:
    """Return about how many bytes a training job writes.

    Of each run: the newest checkpoints, the best, and one that is being written; and its rows.

    Args:
        states: A state of each norm, or its shapes.
        seeds: Number of seeds.
        keep: Number of the newest checkpoints that are kept.
        updates: Updates of each run.
    """
    needed = 0
    for state in states:
        leaves = jax.tree.leaves(state)
        # Twice: with the snapshot of the probe a checkpoint is at most so large.
        arrays = 2 * sum(leaf.size * leaf.dtype.itemsize + ARRAY_BYTES for leaf in leaves)
        needed += (keep + 2) * (arrays + CHECKPOINT_BYTES) + updates * ROW_BYTES
    return seeds * needed


def folder_bytes(folder: Path) -> int:
    """Return how many bytes the files in ``folder`` have."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
