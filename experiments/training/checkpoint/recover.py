"""Which checkpoint to go on with: the newest good one; the damaged are reported and put aside."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.training.checkpoint.content import ACCURACY, Checkpoint, CheckpointError
from experiments.training.checkpoint.read import read_about, restore, saved_steps
from experiments.training.steps import TrainState


def newest(
    folder: Path,
    template: TrainState,
    arrays: dict[str, Any],
    check: Callable[[Checkpoint], None],
    on_message: Callable[[str], None],
) -> Checkpoint | None:
    """Return the newest checkpoint that is what was saved.

    A damaged one is renamed, to ``damaged-STEP`` in the same folder, and reported: the run goes on
    from the one before and will save that step again.

    Args:
        folder: Folder of ``Checkpoints``; not open.
        template: See ``checkpoint.restore``.
        arrays: See ``checkpoint.restore``.
        check: Raises ``CheckpointError`` for a checkpoint that cannot be used for another reason.
        on_message: Takes the reports.

    Returns:
        The checkpoint; None if there has never been one.

    Raises:
        CheckpointError: If there are checkpoints, but none that can be used.
    """
    found, damaged = None, {}
    for step in reversed(saved_steps(folder)):
        try:
            if found is None:
                candidate = restore(folder, template, step, arrays)
                _check_accuracy(folder, step, candidate.accuracy)
                check(candidate)
                found = candidate
            else:  # Of the older ones only what orbax reads to find the best.
                _check_accuracy(folder, step, read_about(folder, step)["accuracy"])
        except CheckpointError as error:
            damaged[step] = error.problem
    if found is None and damaged:
        raise CheckpointError(
            f"none of the checkpoints in {folder} can be used: {'; '.join(damaged.values())}"
        )
    for step, problem in damaged.items():
        on_message(f"Warning: {problem}. It was put aside as {_put_aside(folder, step)}.")
    return found


def _check_accuracy(folder: Path, step: int, expected: float | None) -> None:
    """Raise unless the file from which orbax tells the best checkpoint has this accuracy."""
    path = folder / str(step) / "metrics" / "metrics"
    try:
        accuracy = json.loads(path.read_text())[ACCURACY] if path.exists() else None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from error
    if accuracy != expected:
        raise CheckpointError(f"{path} has accuracy {accuracy}, but {expected} was saved")


def _put_aside(folder: Path, step: int) -> Path:
    number = 1
    while True:
        name = f"damaged-{step}" + (f"-{number}" if number > 1 else "")
        if not (folder / name).exists():
            return (folder / str(step)).rename(folder / name)
        number += 1
