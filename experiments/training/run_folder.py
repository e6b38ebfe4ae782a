"""The folder of all runs of a training job: made or continued, and locked."""

import errno
import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.common import files
from experiments.common.checks import local_path
from experiments.common.output_folder import CONFIG, LOCK, is_begun, new_folder
from experiments.common.storage import storage_errors
from experiments.config.difference import CHECKSUM, check_resumable, identity
from experiments.config.experiment import TrainConfig
from experiments.training.mirror import Mirror, MirrorError

WAY_OUT = (
    ", leave it out for a new folder under runs/, or continue the run that is there with --resume "
    "auto"
)


def open_run_dir(config: TrainConfig, mirror: Mirror | None = None) -> tuple[Path, bool]:
    """Return the run folder, made if need be, and whether there is a run in it to continue.

    Args:
        config: The configuration.
        mirror: Where the run is copied from if it is not on this machine.

    Raises:
        ValueError: If it exists and is not to be resumed, is not a run folder or of another
            configuration, or does not exist and must.
        StorageError: If it cannot be made.
    """
    folder = local_path("run_dir", config.run_dir) if config.run_dir is not None else None
    if config.resume == "never" or folder is None:
        if mirror is not None and mirror.holds_run:
            raise MirrorError(
                f"`mirror` (={config.mirror!r}) holds a run, and results are never overwritten; "
                "give another --mirror, or continue that run with --run-dir and --resume auto."
            )
        return _make(config), False
    if mirror is not None and mirror.holds_run and not is_begun(folder):
        with storage_errors(f"run folder {folder} cannot be made"):
            shutil.rmtree(folder, ignore_errors=True)  # What was left there is nothing to keep.
            mirror.fetch(folder)
    # A process may have been killed right after it had made the folder.
    begun = is_begun(folder)
    if not begun and config.resume == "must":
        raise ValueError(
            f"there is no run in {folder} to resume; give the --run-dir of one, or --resume auto "
            "to start it."
        )
    if not begun:
        return (folder if folder.is_dir() else _make(config)), False
    if not (folder / CONFIG).exists():
        raise ValueError(
            f"{folder} is not the folder of a run: it has other files, but no {CONFIG}. Give "
            "another --run-dir."
        )
    if mirror is not None:
        mirror.check_of(folder)
    check_resumable(files.read_dict(folder / CONFIG), config, folder)
    return folder, True


def check_data(folder: Path, data: dict[str, Any], way_out: str) -> None:
    """Raise ``ValueError`` unless the data are those that the run was started with.

    What the record of an earlier version does not have is not compared.

    Args:
        folder: The run folder.
        data: ``Dataset.record()``.
        way_out: What to do if they are others.

    Raises:
        ValueError: If they are others; the message says in what.
    """
    if not (folder / "data.json").exists():
        return  # Of an earlier version.
    recorded = files.read_dict(folder / "data.json")
    before, now = identity(recorded), identity(data)
    different = [
        f"{name}: {_short(name, before[name])} before, {_short(name, value)} now"
        for name, value in now.items()
        if name in before and before[name] != value
    ]
    if different:
        raise ValueError(
            f"the run in {folder} was started with other data:\n  "
            + "\n  ".join(different)
            + f"\n{way_out}"
        )


def check_mesh(config: TrainConfig, run_dir: Path, before: Any, now: Any) -> None:
    """Raise ``ValueError`` if a run would go on with other statistics, on other devices.

    Where devices have statistics or micro-batches of their own, their number matters.

    Args:
        config: The configuration.
        run_dir: The run folder.
        before: Groups, and devices of each, with which the run was started; None if unknown.
        now: The same of this process.
    """
    alone = config.devices.statistics == "synchronised" and config.optim.accumulate == 1
    if alone or before in (None, now):
        return
    raise ValueError(
        f"the run in {run_dir} was started on {before[0]} x {before[1]} devices (groups x devices "
        f"that share statistics), and here are {now[0]} x {now[1]}: with --statistics "
        f"{config.devices.statistics} and --optim.accumulate {config.optim.accumulate} that would "
        "be another computation. Resume it on as many devices."
    )


def _short(name: str, value: Any) -> Any:
    return value[:16] if name.endswith(CHECKSUM) else value


def _make(config: TrainConfig) -> Path:
    with storage_errors(f"run folder {config.run_dir or 'runs/'} cannot be made"):
        return new_folder("run_dir", config.run_dir, config.data.dataset, WAY_OUT)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training in ``folder``; a killed process leaves no lock behind.

    Raises:
        ValueError: If another process is training there.
        StorageError: If the folder cannot be written.
    """
    with storage_errors(f"run folder {folder} cannot be written"):
        file = (folder / LOCK).open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is training in {folder}; wait for it, stop it, or give another "
                "--run-dir."
            ) from None
        except OSError as error:  # Some network file systems have no locks.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield
