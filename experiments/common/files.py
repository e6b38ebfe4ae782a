"""Files written whole or not at all: JSON, rows of JSON lines, text."""

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import unitnorm_jax  # loads JAX at the first use of a name


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON: all of it or, if that fails, nothing."""
    text = json.dumps(to_plain(content), indent=2, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes ``path`` once that has worked.

    Whenever the process is stopped, ``path`` is the old file or the new one, complete.
    """
    temporary = path.with_name(f"{path.stem}.tmp{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file of a run folder.

    Raises:
        ValueError: If there is none, or it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; give the folder of a finished run.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # Not JSON, or not even text.
        raise ValueError(
            f"{path} is not JSON ({error}); restore it from a copy, or repeat the run."
        ) from None


def read_dict(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that holds a dictionary.

    Raises:
        ValueError: If there is none, or it holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: not a dictionary; restore it from a copy.")
    return content


def to_plain(value: Any) -> Any:
    """Replace what JSON does not know: paths, and numbers by their names ("nan", "inf", "-inf")."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: to_plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file that ``Recorder`` wrote; none if there is no such file.

    Raises:
        ValueError: If a line is not JSON.
    """
    try:
        return unitnorm_jax.ics.read_rows(path) if path.exists() else []
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error


# Names of what is text, whatever it says: a layer may be called "nan".
_TEXT = frozenset({"layer", "output", "kind", "reason", "norm", "method", "folder", "run", "data"})
_NOT_FINITE = frozenset({"nan", "inf", "-inf"})


def read_numbers(path: Path) -> Any:
    """Return the content of a JSON file, with numbers that are not finite as what they are.

    Raises:
        ValueError: If there is none, or it is not JSON.
    """
    return _numbers(read_json(path))


def _numbers(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: v if k in _TEXT else _numbers(v) for k, v in content.items()}
    if isinstance(content, list):
        return [_numbers(entry) for entry in content]
    return float(content) if isinstance(content, str) and content in _NOT_FINITE else content


class Closing:
    """Something to use as ``with Something() as it``, which is closed at the end.

    After an error, what cannot be written any more does not hide that error.

    Attributes:
        unwritten: Error of ``close`` when something cannot be written.
    """

    unwritten: type[Exception] = OSError

    def close(self) -> None:
        """Write what is left."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        try:
            self.close()
        except self.unwritten:
            if error is None:
                raise


def missing(folder: Path, lengths: dict[str, int]) -> list[str]:
    """Return which files in ``folder`` are shorter than ``Recorder.lengths`` said, or gone."""
    sizes = {
        name: (folder / name).stat().st_size if (folder / name).exists() else -1 for name in lengths
    }
    return [name for name, size in sizes.items() if size < lengths[name]]


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows below the names of their columns: all of them or, if that fails, nothing."""
    with replacing(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, in the place of the one before; make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
