"""One training process that is killed at a moment drawn beforehand."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from experiments.training.checkpoint import saved_steps

POLL_SECONDS = 0.002


class Moment(NamedTuple):
    """When to kill.

    Attributes:
        kind: "start" (some time after the process began), "training" or "save".
        fraction: Share of all updates that must have been recorded; for "start", with which it is
            killed in any case.
        delay: Seconds to wait after that and, for "save", after the next save has begun.
    """

    kind: str
    fraction: float
    delay: float


class Kill(NamedTuple):
    """What a kill met.

    Attributes:
        moment: What was planned.
        during: "start", "training" or "save": what the process was doing.
        recorded: Updates that were recorded, of all runs.
        saved: Updates that the newest complete checkpoints held, of all runs.
    """

    moment: Moment
    during: str
    recorded: int
    saved: int


class Progress:
    """What a training process has left on disk so far.

    Args:
        run_dir: Its run folder.
        rows: Number of updates that it will have recorded in the end.

    Attributes:
        start_seconds: Time until the first row of the last process that was not to be killed.
        train_seconds: Time of that process since then.
        began: When the process was started, in seconds since the epoch.
    """

    def __init__(self, run_dir: Path, rows: int) -> None:
        """Read nothing yet."""
        self._run_dir, self.rows = run_dir, rows
        self.start_seconds = self.train_seconds = self.began = 0.0

    def recorded(self) -> int:
        """Return how many updates are recorded."""
        files = self._run_dir.glob("*/train.jsonl")
        return sum(path.read_bytes().count(b"\n") for path in files)

    def saved(self) -> int:
        """Return the updates that the newest complete checkpoints hold."""
        return sum(max(saved_steps(p), default=0) for p in self._run_dir.glob("*/checkpoints"))

    def is_saving(self) -> bool:
        """Return whether a checkpoint is being written, not one that a killed process left."""
        folders = self._run_dir.glob("*/checkpoints/*.orbax-checkpoint-tmp")
        return any(_changed(folder) > self.began for folder in folders)


def _changed(folder: Path) -> float:
    """When a folder was made, or an entry of it; never, if it is gone."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def draw_moments(
    kills: int, seed: int, start_seconds: float, stretch_seconds: float
) -> list[Moment]:
    """Return when to kill: spread over the whole training, a third each at start and in saves.

    Args:
        kills: How many.
        seed: Of the draw.
        start_seconds: How long a process takes before it trains.
        stretch_seconds: How long it trains between two times that it records updates.
    """
    draw = random.Random(seed)
    moments = []
    for i in range(kills):
        kind = ("save", "training", "start")[i % 3]
        longest = {"save": 0.03, "training": stretch_seconds, "start": start_seconds}[kind]
        # Not in the last updates, which a process might finish before it is killed.
        fraction = 0.9 * (i + draw.random()) / kills
        moments.append(Moment(kind, fraction, longest * draw.random()))
    return moments


def run_session(
    command: list[str], log: Path, progress: Progress, moment: Moment | None
) -> Kill | None:
    """Run a training process to its end, or until it is killed.

    Args:
        command: What to run.
        log: Takes what it prints.
        progress: Reads how far it is.
        moment: When to kill it; None for never.

    Returns:
        What the kill met; None if the process came to its end before.

    Raises:
        ValueError: If it fails by itself.
    """
    before = progress.recorded()
    progress.began = time.time()
    start = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            if moment is not None and _wait(process, progress, moment):
                during = "save" if progress.is_saving() else "training"
                process.send_signal(signal.SIGKILL)
                process.wait()
                recorded = progress.recorded()
                if during == "training" and recorded <= before:
                    during = "start"
                return Kill(moment, during, recorded, progress.saved())
            while process.poll() is None and progress.recorded() <= before:
                time.sleep(10 * POLL_SECONDS)
            progress.start_seconds = time.monotonic() - start
            process.wait()
            progress.train_seconds = time.monotonic() - start - progress.start_seconds
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        text = log.read_text(errors="replace")[-2000:]
        raise ValueError(
            f"training failed by itself, with status {process.returncode}; the end of {log}:\n"
            f"{text}"
        )
    return None


def _wait(process: subprocess.Popen[bytes], progress: Progress, moment: Moment) -> bool:
    """Wait for the moment; return whether the process is still running then."""

    def reached() -> bool:
        return progress.recorded() >= moment.fraction * progress.rows

    while moment.kind != "start" and process.poll() is None and not reached():
        time.sleep(POLL_SECONDS)
    while moment.kind == "save" and process.poll() is None and not progress.is_saving():
        time.sleep(POLL_SECONDS / 10)
    deadline = time.monotonic() + moment.delay
    while process.poll() is None and time.monotonic() < deadline:
        if moment.kind == "start" and reached():
            break  # It started faster than expected.
        time.sleep(POLL_SECONDS / 10)
    return process.poll() is None


def use_compilation_cache(folder: Path) -> None:
    """Let every process that is started from now on keep and find its compiled programs there."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
