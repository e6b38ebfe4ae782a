"""The run folder: configuration, versions, JSON lines and TensorBoard events."""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import jax
from tensorboardX import FileWriter
from tensorboardX.proto.summary_pb2 import Summary


def new_run_dir(run_dir: str | None, dataset: str) -> Path:
    """Makes and returns a run folder that did not exist before.

    Args:
        run_dir: The folder; None for ``runs/DATASET-DATE-TIME``, with a number behind it if that
            exists already.
        dataset: Name of the data set.

    Raises:
        ValueError: If ``run_dir`` exists.
    """
    if run_dir is not None:
        folder = Path(run_dir)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise ValueError(
                f"run folder (={run_dir!r}) exists, and a run never overwrites another; give "
                "another --run-dir, or leave it out for a new folder under runs/."
            ) from None
        return folder
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    number = 1
    while True:
        folder = Path("runs") / (f"{dataset}-{now}" + (f"-{number}" if number > 1 else ""))
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def versions() -> dict[str, Any]:
    """Returns what ran: versions of Python and libraries, commit of the code, hardware."""
    names = ["jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn"]
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in [*names, "unitnorm-jax"]},
        "git_commit": _git("rev-parse", "HEAD"),
        # An empty string says that the code is the commit's; None that there is no repository.
        "git_changed_files": _git("status", "--porcelain", "--untracked-files=no"),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "cpu_model": _cpu_model(),
        "devices": [device.device_kind for device in devices],
        "backend": devices[0].platform,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else None


def write_json(path: Path, content: Any) -> None:
    """Writes ``content`` as indented JSON."""
    path.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


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
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON ({error}); restore it from a copy, or repeat the run."
        ) from None


def _plain(value: Any) -> Any:
    """Replaces numbers that JSON does not know by their names: "nan", "inf", "-inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


class Recorder:
    """Writes the rows of one training run to JSON lines and TensorBoard events.

    ``train.jsonl`` has one row per update, ``eval.jsonl`` one per evaluation, ``ics.jsonl``, where
    the shift is probed, one per measurement and layer. Every number of a training or evaluation row
    but its step is also a TensorBoard scalar of that step, named ``train/...`` or ``eval/...``,
    unless it is not finite (in the JSON lines it is then a string, "nan" or "inf").

    Args:
        folder: Folder of the run; made here.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the files."""
        folder.mkdir(parents=True)
        self._folder = folder
        self._files: dict[str, IO[str]] = {}
        self._writer = FileWriter(str(folder / "tensorboard"))

    def write(self, kind: str, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows; ``kind`` is ``train`` or ``eval``, each row has a ``step``."""
        rows = list(rows)
        self.write_lines(kind, rows)
        for row in rows:
            scalars = {
                f"{kind}/{name}": value
                for name, value in row.items()
                if name != "step" and isinstance(value, int | float)
            }
            self.write_scalars(row["step"], scalars)

    def write_lines(self, kind: str, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows to ``{kind}.jsonl`` alone."""
        if kind not in self._files:
            self._files[kind] = (self._folder / f"{kind}.jsonl").open("x", encoding="utf-8")
        for row in rows:
            self._files[kind].write(json.dumps(_plain(row), allow_nan=False) + "\n")
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
            self._writer.add_summary(Summary(value=values), step, time.time())

    def close(self) -> None:
        """Writes what is left and closes the files."""
        for file in self._files.values():
            file.close()
        self._writer.close()

    def __enter__(self) -> "Recorder":
        """Returns the recorder."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the files, also after an error."""
        self.close()
