"""The numbers of updates on their way from the device to the rows of runs."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.common.progress import Progress, Status
from experiments.training.run import Run
from experiments.training.seeds import unstack

SECONDS = 1.0  # Between two looks at what the device has finished.


class StretchRows:
    """Writes the rows of a stretch as they come, without waiting for the device.

    Fetching the numbers of an update waits until the device has made it, and a device that has
    nothing queued meanwhile stands still. So they are fetched once a second, and only those of
    updates that are finished; the rest at the end.

    Args:
        runs: Trained in step, each in the place of its seed where their numbers are stacked.
        epoch: Of the updates, from 0.
        progress: Shown the last row that was written.
    """

    def __init__(self, runs: Sequence[Run], epoch: int, progress: Progress) -> None:
        """Begin a stretch."""
        self._runs, self._epoch, self._progress = runs, epoch, progress
        self._waiting: list[Any] = []
        self._written = 0
        self._began = self._looked = time.perf_counter()
        self._bad: list[tuple[Run, dict[str, Any]]] = []  # Rows that are not finite.

    def add(self, metrics: Any) -> None:
        """Take the numbers of the next update, as ``train_step`` returns them.

        Raises:
            OSError: If rows cannot be written.
        """
        self._waiting.append(metrics)
        if time.perf_counter() - self._looked >= SECONDS:
            self.write_ready()

    def write_ready(self) -> None:
        """Write the rows of the updates that are finished."""
        count = 0
        while count < len(self._waiting) and _is_ready(self._waiting[count]):
            count += 1
        self._write(count)

    def wait(self) -> None:
        """Wait for all updates, still writing rows once a second.

        Raises:
            OSError: If rows cannot be written.
        """
        for metrics in tuple(self._waiting):
            jax.block_until_ready(metrics)
            if time.perf_counter() - self._looked >= SECONDS:
                self.write_ready()

    def end(self, problem: OSError | None = None) -> None:
        """Write the rest, and check what was computed.

        Args:
            problem: What ended the stretch early; raised here, unless a loss is not finite.

        Raises:
            NonFiniteLossError: If a loss or gradient is not finite.
            OSError: If rows cannot be written.
        """
        try:
            self._write(len(self._waiting), keep_only=problem is not None)
        except OSError as error:
            problem = error
        for run, row in self._bad:
            # That the disk is full, say, is the smaller trouble.
            what = f"loss is {row['loss']:.6g}, the norm of its gradient {row['grad_norm']:.6g},"
            run.fail(what, int(row["step"]))
        if problem is not None:
            raise problem

    def _write(self, count: int, keep_only: bool = False) -> None:
        self._looked = time.perf_counter()
        if not count:
            return
        fetched = jax.device_get(self._waiting[:count])
        del self._waiting[:count]
        self._written += count
        together = len(self._runs) > 1
        values = [unstack(numbers) if together else [numbers] for numbers in fetched]
        problem: OSError | None = None
        for i, run in enumerate(self._runs):
            rows = [self._row(run, run.step + k, each[i]) for k, each in enumerate(values)]
            run.train_rows.extend(rows)
            # Both, because relu(nan) can be 0 when compiled for a CPU: the loss then looks finite,
            # but not its gradient.
            bad = [r for r in rows if not np.isfinite([r["loss"], r["grad_norm"]]).all()]
            self._bad.extend((run, row) for row in bad[:1])
            try:
                if not keep_only:
                    run.recorder.write("train", rows)
            except OSError as error:
                problem = problem or error
        self._show(count)
        if problem is not None:
            raise problem

    def _row(self, run: Run, done: int, numbers: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": done + 1,
            "epoch": self._epoch + 1,
            "learning_rate": float(run.program.rates[done]),
            **{name: float(value) for name, value in numbers.items()},
        }

    def _show(self, count: int) -> None:
        run, several = self._runs[-1], len(self._runs) > 1
        row, optim = run.train_rows[-1], run.config.optim
        seconds = time.perf_counter() - self._began
        status = Status(
            f"{run.program.norm}, " + ("all seeds" if several else f"seed {run.seed}"),
            self._epoch + 1,
            optim.epochs,
            row["step"],
            run.program.updates,
            self._written * optim.batch_size * len(self._runs) / seconds,
            row["loss"],
            row["accuracy"],
        )
        self._progress.show(status, count * len(self._runs))


def _is_ready(metrics: Any) -> bool:
    return all(leaf.is_ready() for leaf in jax.tree.leaves(metrics))
