"""Reads the TensorBoard events of a run."""

from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events of one file.

    The format is a sequence of records: length (8 bytes), its checksum (4), content, its checksum
    (4); the file of a process that was killed may end within one.

    Raises:
        ValueError: If the last record is not complete.
    """
    data, start = path.read_bytes(), 0
    while start < len(data):
        length = int.from_bytes(data[start : start + 8], "little")
        end = start + 12 + length + 4
        if end > len(data):
            raise ValueError(f"the last of the records in {path} is cut off.")
        yield Event.FromString(data[start + 12 : end - 4])
        start = end


def read_scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Return tag, step and value of every scalar in a folder of event files, as often as it is."""
    return [
        (value.tag, event.step, value.simple_value)
        for path in sorted(folder.glob("events*"))
        for event in read_events(path)
        for value in event.summary.value
    ]
