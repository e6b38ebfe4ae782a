"""Folders of arrays that were expensive to make: written once and completely, then mapped."""

import contextlib
import json
import math
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.checks import local_path

_DESCRIPTION = "description.json"
_CHUNK = 2**26  # Bytes that are looked at together.


def cache_root(cache_dir: str | None) -> Path:
    """Return the folder of all caches: ``cache_dir``, or one in the user's cache folder."""
    if cache_dir is not None:
        return local_path("cache_dir", cache_dir)
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return local_path("XDG_CACHE_HOME", root) / "unitnorm_jax" / "images"


class Writer:
    """Writes the arrays of one cache into a folder that is not complete yet.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        """Start without arrays."""
        self._folder = folder
        self._arrays: dict[str, dict[str, Any]] = {}

    def extend(self, name: str, rows: np.ndarray) -> None:
        """Add rows to the array called ``name``; all its rows have one shape and dtype."""
        # A plain write, not a mapped file: on a full disk that would end in a signal, not an error.
        with (self._folder / name).open("ab") as file:
            file.write(np.ascontiguousarray(rows).data)
        new = {"dtype": rows.dtype.str, "shape": [0, *rows.shape[1:]], "crc32": 0}
        entry = self._arrays.setdefault(name, new)
        entry["shape"][0] += len(rows)
        entry["crc32"] = zlib.crc32(np.ascontiguousarray(rows).data, entry["crc32"])

    def rows(self, name: str) -> np.ndarray:
        """Return what the array called ``name`` has so far, mapped into memory."""
        return _open(self._folder / name, self._arrays[name])

    def describe(self, notes: dict[str, Any]) -> None:
        """Write the shapes, and ``notes`` for the reader."""
        content = {"arrays": self._arrays, "notes": notes}
        described = {"content": content, "crc32": _crc32_of(content)}
        (self._folder / _DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n")


def write_cache(folder: Path, make: Callable[[Writer], dict[str, Any]]) -> None:
    """Make the cache ``folder``, all or nothing.

    Args:
        folder: The cache; an existing one is left as it is.
        make: Writes the arrays, and returns notes for the reader.

    Raises:
        ValueError: If the files cannot be written.
    """
    incomplete = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        incomplete = Path(tempfile.mkdtemp(prefix=f"{folder.name}.incomplete-", dir=folder.parent))
        writer = Writer(incomplete)
        writer.describe(make(writer))
        incomplete.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # Else another process made the same at the same time.
            raise ValueError(
                f"decoded images cannot be written to {folder.parent}: {error}. Give a folder "
                "with room for them: --data.cache-dir FOLDER."
            ) from error
    finally:
        if incomplete is not None:
            shutil.rmtree(incomplete, ignore_errors=True)


def open_cache(
    folder: Path, make: Callable[[Writer], dict[str, Any]]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a cache, mapped into memory, and the notes; make it where need be.

    One that is damaged, by its checksums, is made again.

    Args:
        folder: The cache.
        make: As for ``write_cache``.

    Raises:
        ValueError: If the files cannot be written.
    """
    found = _read(folder)
    if found is None:
        shutil.rmtree(folder, ignore_errors=True)
        write_cache(folder, make)
        found = _read(folder)
    if found is None:
        raise ValueError(
            f"the decoded images in {folder} are damaged as soon as they are written. Give a "
            "folder on another disk: --data.cache-dir FOLDER."
        )
    with contextlib.suppress(OSError):  # A cache may be read-only.
        os.utime(folder)  # When it was last used.
    return found


def limit_size(keep: Path, gigabytes: float) -> None:
    """Delete the least recently used caches beside ``keep`` until all fit.

    A process that has mapped a deleted cache can still read it.
    """
    caches = sorted(caches_in(keep.parent), key=lambda path: path.stat().st_mtime)
    sizes = {path: size_of(path) for path in caches}
    total = sum(sizes.values())
    for path, size in sizes.items():
        if total > gigabytes * 1e9 and path != keep:
            total -= size
            shutil.rmtree(path, ignore_errors=True)


def caches_in(root: Path) -> list[Path]:
    """Return the complete caches in a folder. Folders with other names belong to the user."""
    described = (path.parent for path in root.glob(f"*/{_DESCRIPTION}"))
    return sorted(path for path in described if re.fullmatch(r"[0-9a-f]{32}", path.name))


def left_in(root: Path) -> list[Path]:
    """Return the incomplete caches of processes that were killed."""
    pattern = r"[0-9a-f]{32}\.incomplete-\w+"
    return sorted(p for p in root.glob("*.incomplete-*") if re.fullmatch(pattern, p.name))


def size_of(folder: Path) -> int:
    """Return the size of a cache in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir())


def _read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Return arrays and note, or None if the cache is missing or damaged."""
    try:
        described = json.loads((folder / _DESCRIPTION).read_text())
        content = described["content"]
        if _crc32_of(content) != described["crc32"]:
            return None
        arrays = {name: _open(folder / name, entry) for name, entry in content["arrays"].items()}
        whole = all(
            _crc32(array) == content["arrays"][name]["crc32"] for name, array in arrays.items()
        )
        return (arrays, content["notes"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _crc32_of(content: Any) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _open(path: Path, entry: dict[str, Any]) -> np.ndarray:
    shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
    if path.stat().st_size != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{path} has another size")  # Mapped, a read behind its end is a signal.
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)


def _crc32(array: np.ndarray) -> int:
    found = 0
    for rows in np.array_split(array, max(1, array.nbytes // _CHUNK)) if len(array) else ():
        found = zlib.crc32(np.ascontiguousarray(rows).data, found)
    return found
