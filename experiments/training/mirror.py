"""A copy of the run folder at an address, for machines whose disk goes away with them.

Rows need a file system that appends and renames, and checkpoints one that renames; object stores do
neither. So a run is written to a local folder, and copied after every checkpoint.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from experiments.common.files import read_dict
from experiments.common.output_folder import LOCK, whole_folder
from experiments.common.reasons import reason

MANIFEST = "mirror.json"
# What is not finished, or of this machine alone.
_LEFT_OUT = re.compile(rf"{re.escape(LOCK)}|.*\.tmp(\..*|$)|.*\.orbax-checkpoint-tmp.*|deleted")


class MirrorError(ValueError):
    """The mirror cannot be read or written, or is not that of the run."""


class _File(NamedTuple):
    """A file as the manifest has it: how much of it counts, the checksum of that, and its place."""

    size: int
    sha256: str
    place: str


class Mirror:
    """The copy of a run folder at an address that fsspec knows, such as ``gs://bucket/runs/a``.

    ``push`` copies what is new, then writes the manifest, one small file, and only then deletes
    what the folder no longer has. Rows only grow, and the manifest says how much of them counts;
    other files that change get a new name there. So whenever a push is interrupted, the mirror
    still is the state of the push before.

    Args:
        url: The address.

    Raises:
        MirrorError: If the address is of a kind that fsspec does not know, or cannot be read, or
            holds something else.
    """

    def __init__(self, url: str) -> None:
        """Look what is there."""
        self.url = url
        self._hashed: dict[tuple[str, int, int], str] = {}
        with self._errors("read"):
            self._fs, self._root = fsspec.core.url_to_fs(url)
            self._root = self._root.rstrip("/")
            self._fs.invalidate_cache()
            found = self._fs.exists(self._path(MANIFEST))
            text = self._fs.cat_file(self._path(MANIFEST)) if found else b""
            other = not found and self._fs.exists(self._root) and self._fs.find(self._root)
        if other:
            raise MirrorError(
                f"`mirror` (={url!r}) holds something else than a run: give another --mirror."
            )
        self._files = self._read(text) if found else {}

    def _read(self, text: bytes) -> dict[str, _File]:
        try:
            return {name: _File(*entry) for name, entry in json.loads(text)["files"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise MirrorError(
                f"`mirror` (={self.url!r}) is damaged: its {MANIFEST} cannot be read ({error}); "
                "restore it from a copy, or give another --mirror."
            ) from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _errors(self, what: str) -> "_Errors":
        return _Errors(self.url, what)

    @property
    def holds_run(self) -> bool:
        """Whether a run is there."""
        return bool(self._files)

    def check_of(self, folder: Path) -> None:
        """Raise ``MirrorError`` if the run that is there is not the one in ``folder``."""
        versions = folder / "versions.json"
        if not self.holds_run or not versions.exists():
            return
        read_dict(versions)
        if self._files.get(versions.name, _File(0, "", "")).sha256 != self._sha256(versions):
            raise MirrorError(
                f"`mirror` (={self.url!r}) holds another run than {folder}; results are never "
                "overwritten. Give another --mirror, or the --run-dir of that run."
            )

    def push(self, folder: Path) -> None:
        """Copy what is new in ``folder``, and delete what is gone.

        Raises:
            MirrorError: If the mirror cannot be written; what it had is still there.
        """
        new = {str(p.relative_to(folder)): self._entry(folder, p) for p in _paths(folder)}
        with self._errors("written"):
            if not self._files:  # What is left of a first push that is interrupted is ours.
                self._write_manifest({})
            for name, entry in new.items():
                if self._files.get(name) != entry:
                    self._put(entry.place, partial(_copy, folder / name))
            self._write_manifest(new)
            old = {entry.place for entry in self._files.values()}
            self._files = new
            for place in old - {entry.place for entry in new.values()}:
                self._fs.rm_file(self._path(place))

    def _write_manifest(self, entries: dict[str, _File]) -> None:
        content = json.dumps({"files": entries}).encode()
        self._put(MANIFEST, lambda to: to.write(content))

    def _entry(self, folder: Path, path: Path) -> _File:
        name = place = str(path.relative_to(folder))
        sha256 = self._sha256(path)
        before = self._files.get(name)
        if before is not None and path.suffix != ".jsonl" and "tensorboard" not in path.parts:
            place = before.place if before.sha256 == sha256 else f"{name}.{sha256[:16]}"
        return _File(path.stat().st_size, sha256, place)

    def _sha256(self, path: Path) -> str:
        status = path.stat()
        key = str(path), status.st_size, status.st_mtime_ns
        if key not in self._hashed:
            with path.open("rb") as file:
                self._hashed[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashed[key]

    def _put(self, name: str, write: Callable[[Any], Any]) -> None:
        path = self._path(name)
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        # In a transaction a file appears whole, when it is closed, or not at all.
        with self._fs.transaction, self._fs.open(path, "wb") as file:
            write(file)

    def fetch(self, folder: Path) -> None:
        """Make ``folder`` what the mirror holds: all of it or, if that fails, nothing.

        Raises:
            MirrorError: If a file is missing or damaged.
        """
        with whole_folder("run_dir", folder) as unfinished:
            for name, entry in self._files.items():
                path = unfinished / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with self._errors("read"), self._fs.open(self._path(entry.place), "rb") as source:
                    content = source.read(entry.size)
                if hashlib.sha256(content).hexdigest() != entry.sha256:
                    raise MirrorError(
                        f"{name} in `mirror` (={self.url!r}) is damaged; restore it from a copy, "
                        "or repeat the run with another --mirror."
                    )
                path.write_bytes(content)


class _Errors:
    """Turns what drivers raise, of a dozen types, into ``MirrorError``."""

    def __init__(self, url: str, what: str) -> None:
        self._url, self._what = url, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, MirrorError) or not isinstance(error, Exception):
            return
        if isinstance(error, ImportError):
            named = re.search(r"(?:[Ii]nstall|requires) \W*(\w+)", str(error))
            raise MirrorError(
                f"`mirror` (={self._url!r}) cannot be {self._what}. Its driver is not installed: "
                f"uv pip install {named[1] if named else error}."
            ) from error
        raise MirrorError(
            f"`mirror` (={self._url!r}) cannot be {self._what}: {reason(error)}. Give an address "
            "that fsspec knows, and that this machine may write."
        ) from error


def _paths(folder: Path) -> Iterator[Path]:
    """Yield the finished files of a run folder, rows first: more than counts does no harm."""

    def finished(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        return path.is_file() and not any(map(_LEFT_OUT.fullmatch, parts))

    paths = sorted(filter(finished, folder.rglob("*")))
    yield from sorted(paths, key=lambda path: "checkpoints" in path.parts)


def _copy(path: Path, to: Any) -> None:
    with path.open("rb") as file:
        shutil.copyfileobj(file, to, 1 << 20)
