"""Writing checkpoints: in the background, each complete or not there."""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from experiments.common.files import Closing
from experiments.common.reasons import drop_logs, ignore_closed_loop, reason, way_out
from experiments.training.checkpoint.content import (
    ACCURACY,
    DESCRIPTION,
    Checkpoint,
    CheckpointError,
    all_finite,
    checksums,
    json_checksum,
    on_host,
    state_arrays,
)

_DELETED = "deleted"  # Folder of checkpoints to be deleted.


class _Manager(ocp.CheckpointManager):
    """Does not ask whether to stop, as orbax does at every save: that is up to ``Preemption``.

    JAX takes the number that comes with the question for how far a process is. Orbax gives the
    update, ``Preemption`` the number of its questions, which is larger: of a notice that came in
    between, the point to stop at would be one that is over, and training would not stop.
    """

    def reached_preemption(self, step: int) -> bool:
        """Return False."""
        del step
        return False


class Checkpoints(Closing):
    """The checkpoints of one run, saved in the background: each is complete, or not there.

    Kept are the newest ones and the one of the best test accuracy (the later of equals). Each is
    first written beside, then renamed; an older one is deleted only after that. So whatever happens
    during a save, even SIGKILL, the one before is still there; what the interrupted save left is
    cleaned up when the folder is next opened.

    Args:
        folder: Their folder, made here.
        keep: Number of the newest that are kept, besides the best.

    Attributes:
        saved_step: Step of the newest complete checkpoint, None before there is one.

    Raises:
        CheckpointError: If the folder cannot be written.
    """

    unwritten = CheckpointError

    def __init__(self, folder: Path, keep: int = 2) -> None:
        """Open the folder."""
        self._folder = folder.resolve()
        policies = ocp.checkpoint_managers
        best = policies.BestN(get_metric_fn=_accuracy, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            best_fn=_accuracy,
            cleanup_tmp_directories=True,
            # A renamed checkpoint is gone at once; a process killed while it deletes one file after
            # the other would leave what looks like a damaged checkpoint.
            todelete_subdir=_DELETED,
            # In the foreground, or a folder that cannot be written is noticed after 20 minutes.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        drop_logs()
        ignore_closed_loop()
        try:
            self._manager = _Manager(self._folder, options=options)
        except OSError as error:
            raise CheckpointError(
                f"the checkpoints in {folder} cannot be opened: {reason(error)}",
                "Give a --run-dir that can be written.",
            ) from error
        self._pending: int | None = None
        self._unwritten: int | None = None
        self.saved_step: int | None = self._manager.latest_step()
        self._clear()

    @property
    def best_step(self) -> int | None:
        """Step of the best test accuracy among those kept; None if there is none."""
        return self._manager.best_step()

    @property
    def steps(self) -> Sequence[int]:
        """Steps of the checkpoints that are kept, in order; the last may still be being written."""
        return self._manager.all_steps()

    def save(self, checkpoint: Checkpoint) -> bool:
        """Start to save, unless a number in the state is not finite; return before it is done.

        The newest checkpoint is replaced by one of the same step that has an accuracy, where it had
        none: as long as there is another, in case that saving is interrupted.

        Returns:
            Whether it is being saved; False, and the checkpoint before is kept, if it is not
            finite.

        Raises:
            CheckpointError: If the save before this one failed, this one cannot start, or there is
                a checkpoint of this or a later step.
        """
        self.wait()
        arrays = {"state": state_arrays(checkpoint.state), **on_host(dict(checkpoint.arrays))}
        if not all_finite(arrays["state"]):
            return False
        step = checkpoint.step
        about = {name: getattr(checkpoint, name) for name in DESCRIPTION}
        about |= {"arrays": sorted(checkpoint.arrays), "checksums": checksums(arrays)}
        content = ocp.args.Composite(
            **{name: ocp.args.StandardSave(tree) for name, tree in arrays.items()},
            about=ocp.args.JsonSave({**about, "sha256": json_checksum(about)}),
        )
        accuracy = checkpoint.accuracy
        metrics = None if accuracy is None else {ACCURACY: accuracy}
        if accuracy is not None and step == self.saved_step and self._lacks_accuracy(step):
            if len(self.steps) == 1:
                return True
            self._manager.delete(step)
        self._pending = step
        try:
            saved = self._manager.save(step, args=content, metrics=metrics)
        except Exception as error:  # Orbax and TensorStore raise a dozen types.
            raise self._failed(error) from error
        if not saved:
            self._pending = None
            raise CheckpointError(
                f"`step` (={step}) was not saved in {self._folder}: its latest checkpoint is of "
                f"step {self._manager.latest_step()}",
                "Save to a new folder.",
            )
        return True

    def _lacks_accuracy(self, step: int) -> bool:
        return self._manager.metrics(step) is None

    def wait(self) -> None:
        """Wait until what is being saved is complete.

        Raises:
            CheckpointError: If it could not be saved.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error
        if self._pending is not None:
            self.saved_step, self._pending = self._pending, None
        self._clear()

    def _clear(self) -> None:
        """Remove the checkpoints that orbax has put aside to be deleted."""
        if jax.process_index() == 0:
            shutil.rmtree(self._folder / _DELETED, ignore_errors=True)

    def _clear_unwritten(self) -> None:
        """Remove what there is of a checkpoint that failed: it holds the space that is missing."""
        for rest in self._folder.glob(f"{self._unwritten}.orbax-checkpoint-tmp*"):
            for _ in range(40):  # Threads that write its other arrays may not have ended yet.
                shutil.rmtree(rest, ignore_errors=True)
                if not rest.exists():
                    break
                time.sleep(0.05)

    def _failed(self, error: Exception) -> CheckpointError:
        step, self._pending = self._pending, None
        problem = reason(error)
        self._unwritten = step
        self._clear_unwritten()
        before = (
            "There is none before it"
            if self.saved_step is None
            else f"The one before, of update {self.saved_step}, is complete"
        )
        return CheckpointError(
            f"the checkpoint of update {step} could not be written in {self._folder}: {problem}",
            f"{before}; {way_out(problem)}, then continue with --resume auto.",
        )

    def close(self) -> None:
        """Wait, and end the threads that save."""
        try:
            self.wait()
        finally:
            # It raises once more what `wait` has raised.
            try:
                self._manager.close()
            except Exception as error:
                logging.getLogger(__name__).debug("closing: %s", error)
            self._clear_unwritten()


def _accuracy(metrics: dict[str, float]) -> float:
    return metrics.get(ACCURACY, -1.0)
