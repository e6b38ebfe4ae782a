"""The rows of a run: JSON lines and TensorBoard events."""

import json
import math
import os
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from experiments.common import files

FLUSH_SECONDS = 2  # Between two times that events become visible to TensorBoard.


class Recorder(files.Closing):
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
        """Open the files."""
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
        """Return the length of each file, in bytes, once all of it is on disk."""
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
        """Append rows to ``{kind}.jsonl`` and to the events; each row has a ``step``."""
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
        """Append rows to ``{kind}.jsonl`` alone."""
        if kind not in self._files:
            self._files[kind] = (self._folder / f"{kind}.jsonl").open("a", encoding="utf-8")
        for row in rows:
            self._files[kind].write(json.dumps(files.to_plain(row), allow_nan=False) + "\n")
        self._files[kind].flush()

    def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
        """Add those TensorBoard scalars that are finite, by their full names."""
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
        """Write what is left and close the files."""
        with ExitStack() as stack:  # Closes all, whichever fails.
            stack.callback(self._events.close)
            for file in self._files.values():
                stack.callback(file.close)


class NullRecorder(Recorder):
    """Writes nothing: the recorder of every process but the first."""

    def __init__(self) -> None:
        """Open no files."""

    def lengths(self) -> dict[str, int]:
        """There are no files."""
        return {}

    def write(self, kind: str, rows: Iterable[dict[str, Any]]) -> None:
        """Drop the rows."""

    def write_lines(self, kind: str, rows: Iterable[dict[str, Any]]) -> None:
        """Drop the rows."""

    def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
        """Drop the scalars."""

    def close(self) -> None:
        """Do nothing."""
