"""Files of the run folder: JSON, JSON lines and TensorBoard events."""

import json
import math
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

FLUSH_SECONDS = 10  # Between two times that events become visible to TensorBoard.


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` as indented JSON: all of it or, if that fails, nothing."""
    text = json.dumps(to_plain(content), indent=2, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text)


def check_new(path: Path | None) -> None:
    """Raises ``ValueError`` if the file for ``--json`` is there already."""
    if path is not None and path.exists():
        raise ValueError(f"--json (={str(path)!r}) exists, and results are never overwritten.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path to write to, which becomes ``path`` once that has worked.

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
    """Returns the content of a JSON file of a run folder.

    Raises:
        ValueError: If there is none, or it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{path} does not exist; give the folder of a finished run of experiments.train."
        ) from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # Not JSON, or not even text.
        raise ValueError(
            f"{path} is not JSON ({error}); restore it from a copy, or repeat the run."
        ) from None


def to_plain(value: Any) -> Any:
    """Replaces numbers that JSON does not know by their names: "nan", "inf", "-inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: to_plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    return value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file that ``Recorder`` wrote; none if there is no such file.

    Raises:
        ValueError: If a line is not JSON.
    """
    rows = []
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is no object with names")
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"line {number} of {path} is not JSON ({error}); restore the file from a copy, or "
                "repeat the run."
            ) from None
        rows.append(_numbers(row))
    return rows


# Names of what is text, whatever it says: a layer may be called "nan".
_TEXT = frozenset({"layer", "output", "kind", "reason", "norm", "method", "folder", "run", "data"})
_NOT_FINITE = frozenset({"nan", "inf", "-inf"})


def read_numbers(path: Path) -> Any:
    """Returns the content of a JSON file, with numbers that are not finite as what they are.

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


def missing(folder: Path, lengths: dict[str, int]) -> list[str]:
    """Returns which files in ``folder`` are shorter than ``Recorder.lengths`` said, or gone."""
    sizes = {
        name: (folder / name).stat().st_size if (folder / name).exists() else -1 for name in lengths
    }
    return [name for name, size in sizes.items() if size < lengths[name]]


class Recorder:
    """Writes the rows of one training run to JSON lines and TensorBoard events.

    ``train.jsonl`` has one row per update, ``eval.jsonl`` one per evaluation, ``ics.jsonl``, where
    the shift is probed, one per measurement and layer. Every number of a training or evaluation row
    but its step is also a TensorBoard scalar of that step, named ``train/...`` or ``eval/...``,
    unless it is not finite (in the JSON lines it is then a string, "nan" or "inf").

    A resumed run goes back to what its checkpoint knew of: each file, of lines or of events, is cut
    to its length at that time, a file begun later is deleted, and what follows is written again.
    New events go to a new file beside: TensorBoard shows the files of a folder as one.

    Args:
        folder: Folder of the run; made here, unless it is resumed.
        lengths: What ``lengths`` returned when the checkpoint was saved; None to begin a new run.
    """

    def __init__(self, folder: Path, lengths: dict[str, int] | None = None) -> None:
        """Opens the files."""
        self._folder = folder
        self._files: dict[str, IO[str]] = {}
        events = folder / "tensorboard"
        events.mkdir(parents=True, exist_ok=lengths is not None)
        if lengths is not None:
            for path in self._paths():
                length = lengths.get(str(path.relative_to(folder)), 0)
                if length == 0:
                    path.unlink()
                elif path.stat().st_size > length:
                    os.truncate(path, length)
        # A number of its own, for two starts within one second.
        numbers = [int(p.suffix[1:]) for p in events.iterdir() if p.suffix[1:].isdecimal()]
        number = 1 + max(numbers, default=0)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{number}"
        self._events = RecordWriter(str(events / name))
        self._write_event(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._flushed = time.monotonic()

    def _paths(self) -> list[Path]:
        return [*self._folder.glob("*.jsonl"), *self._folder.glob("tensorboard/events*")]

    def lengths(self) -> dict[str, int]:
        """Returns the length of each file, in bytes, once all of it is on disk."""
        for file in self._files.values():
            file.flush()
        self._events.flush()
        lengths = {}
        for path in self._paths():
            with path.open("rb") as written:
                os.fsync(written.fileno())
            lengths[str(path.relative_to(self._folder))] = path.stat().st_size
        return lengths

    def write(self, kind: str, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows to ``{kind}.jsonl`` and to the events; each row has a ``step``."""
        rows = list(rows)
        self.write_lines(kind, rows)
        for row in rows:
            scalars = {
                f"{kind}/{name}": value
                for name, value in row.items()
                if name != "step" and isinstance(value, int | float)
            }
            self.write_scalars(row["step"], scalars)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._events.flush()
            self._flushed = time.monotonic()

    def write_lines(self, kind: str, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows to ``{kind}.jsonl`` alone."""
        if kind not in self._files:
            self._files[kind] = (self._folder / f"{kind}.jsonl").open("a", encoding="utf-8")
        for row in rows:
            self._files[kind].write(json.dumps(to_plain(row), allow_nan=False) + "\n")
        self._files[kind].flush()

    def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
        """Adds those TensorBoard scalars that are finite, by their full names."""
        # One event for all: ten times faster than one for each.
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in scalars.items()
            if math.isfinite(value)
        ]
        if values:
            event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
            self._write_event(event)

    def _write_event(self, event: Event) -> None:
        self._events.write(event.SerializeToString())

    def close(self) -> None:
        """Writes what is left and closes the files."""
        with ExitStack() as stack:  # Closes all, whichever fails.
            stack.callback(self._events.close)
            for file in self._files.values():
                stack.callback(file.close)

    def __enter__(self) -> "Recorder":
        """Returns the recorder."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the files; after an error, what cannot be written does not hide that error."""
        try:
            self.close()
        except OSError:
            if error is None:
                raise


class NullRecorder(Recorder):
    """Writes nothing: the recorder of every process but the first."""

    def __init__(self) -> None:
        """Opens no files."""

    def lengths(self) -> dict[str, int]:
        """There are no files."""
        return {}

    def write(self, kind: str, rows: Iterable[dict[str, Any]]) -> None:
        """Drops the rows."""

    def write_lines(self, kind: str, rows: Iterable[dict[str, Any]]) -> None:
        """Drops the rows."""

    def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
        """Drops the scalars."""

    def close(self) -> None:
        """Does nothing."""
