"""Folders of arrays that were expensive to make: written once and completely, then mapped."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_DESCRIPTION = "description.json"


def cache_root(cache_dir: str | None) -> Path:
    """Returns the folder of all caches: ``cache_dir``, or one in the user's cache folder."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "unitnorm_jax" / "images"


class Writer:
    """Writes the arrays of one cache into a folder that is not complete yet.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        """Starts without arrays."""
        self._folder = folder
        self._arrays: dict[str, dict[str, Any]] = {}

    def extend(self, name: str, rows: np.ndarray) -> None:
        """Adds rows to the array called ``name``; all its rows have one shape and dtype."""
        # A plain write, not a mapped file: on a full disk that would end in a signal, not an error.
        with (self._folder / name).open("ab") as file:
            file.write(np.ascontiguousarray(rows).data)
        new = {"dtype": rows.dtype.str, "shape": [0, *rows.shape[1:]]}
        self._arrays.setdefault(name, new)["shape"][0] += len(rows)

    def rows(self, name: str) -> np.ndarray:
        """Returns what the array called ``name`` has so far, mapped into memory."""
        return _open(self._folder / name, self._arrays[name])

    def describe(self, notes: dict[str, Any]) -> None:
        """Writes the shapes, and ``notes`` for the reader."""
        content = {"arrays": self._arrays, "notes": notes}
        (self._folder / _DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n")


def write_cache(folder: Path, make: Callable[[Writer], dict[str, Any]]) -> None:
    """Makes the cache ``folder``, all or nothing.

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


def read_cache(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the arrays of a cache, mapped into memory, and the notes.

    Raises:
        ValueError: If a file is missing or too short.
    """
    try:
        content = json.loads((folder / _DESCRIPTION).read_text())
        arrays = {name: _open(folder / name, entry) for name, entry in content["arrays"].items()}
        return arrays, content["notes"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the decoded images in {folder} are damaged: {error}. Delete that folder; they are "
            "then decoded again."
        ) from error


def _open(path: Path, entry: dict[str, Any]) -> np.ndarray:
    shape = tuple(entry["shape"])
    return np.memmap(path, dtype=np.dtype(entry["dtype"]), mode="r", shape=shape)
