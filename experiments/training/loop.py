"""The training loop: all norms in turns, on the same batches."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments.common.errors import Preempted
from experiments.common.progress import SILENT, Progress
from experiments.config.experiment import TrainConfig
from experiments.data import Dataset
from experiments.training.preemption import Preemption
from experiments.training.profiling import NO_PROFILE, Profile
from experiments.training.program import Program, evaluate_test, mean_alphas, updates_per_epoch
from experiments.training.rows import StretchRows
from experiments.training.run import Run, start
from experiments.training.seeds import spread_over_devices, stack, unstack


class Watch(NamedTuple):
    """What training looks at, and what looks at it.

    Attributes:
        preemption: Tells when to stop.
        progress: Shown how far it is.
        profile: Traces some of the updates.
    """

    preemption: Preemption
    progress: Progress = SILENT
    profile: Profile = NO_PROFILE

    def goes_on(self) -> bool:
        """Return whether another update may be made."""
        return not (self.preemption.requested() or self.preemption.save_wanted)


def train_seeds(
    config: TrainConfig,
    programs: list[Program],
    dataset: Dataset,
    seeds: Sequence[int],
    run_dir: Path,
    preemption: Preemption | None = None,
    progress: Progress = SILENT,
    profile: Profile = NO_PROFILE,
    on_message: Callable[[str], None] = lambda message: None,
    on_saved: Callable[[], None] | None = None,
) -> list[Run]:
    """Train each norm from the same initial weights, on the same batches.

    Several seeds of a norm are trained together, in one program.

    Norms take turns between two evaluations, in alternating order, so that whatever else slows the
    machine down meets all of them alike: their times per step can be compared pair by pair.

    A run that has a folder in the run folder goes on from its last checkpoint, each from its own;
    what it had done is not done again.

    Args:
        config: The configuration.
        programs: One compiled program per norm.
        dataset: The images.
        seeds: Each gives initial weights, data order and augmentation.
        run_dir: The run folder.
        preemption: Tells when to stop; None for never.
        progress: Told how far it is.
        profile: Traces some of the updates.
        on_message: Told what a user should know about runs that are resumed.
        on_saved: Called when checkpoints are complete, which training then waits for.

    Returns:
        One finished run per norm and seed, norm by norm.

    Raises:
        NonFiniteLossError: If a loss or gradient is not finite; the last good checkpoint stays.
        Preempted: If it was asked to stop; all runs are saved.
        CheckpointError: If a checkpoint cannot be saved, or none can be restored.
    """
    updates = updates_per_epoch(config, dataset)
    preemption = preemption or Preemption()
    watch = Watch(preemption, progress, profile)
    with ExitStack() as opened:
        opened.callback(setattr, preemption, "busy", False)  # Last, when all is saved and closed.
        groups = [
            [start(config, program, dataset, s, run_dir, opened, on_message) for s in seeds]
            for program in programs
        ]
        runs = [run for group in groups for run in group]
        for run in runs:
            progress.found(run.step)
        preemption.busy = True
        try:
            if on_saved:
                on_saved()
            for turn, (epoch, end, save) in enumerate(_stretches(config, updates)):
                for group in groups if turn % 2 == 0 else groups[::-1]:
                    while any(run.step < end for run in group):
                        _train_seeds(group, epoch, end, watch)
                        if preemption.save_wanted:
                            _save_now(runs, preemption, on_message, on_saved)
                    progress.doing("evaluating")
                    for run in group:
                        _evaluate(run, end, preemption)
                due = [run for run in runs if save and run.step == end]
                for run in due:
                    run.save()
                if due and on_saved:
                    _wait(runs, on_saved)
        except Preempted:
            for run in runs:
                run.save()
            _wait(runs, on_saved)
            raise
    return runs


def _train_seeds(group: list[Run], epoch: int, end: int, watch: Watch) -> None:
    """Train the seeds of a norm until ``end``, or until everything is to be saved."""
    # After an interruption one may have done more than another.
    if len(group) > 1 and len({run.step for run in group}) == 1:
        _train_group(group, epoch, end, watch)
    for run in group if not watch.preemption.save_wanted else ():
        train_stretch(run, epoch, end, watch)


def _wait(runs: Sequence[Run], on_saved: Callable[[], None] | None) -> None:
    """Wait until all checkpoints are complete, and tell it."""
    for run in runs:
        run.checkpoints.wait()
    if on_saved:
        on_saved()


def _save_now(
    runs: Sequence[Run],
    preemption: Preemption,
    on_message: Callable[[str], None],
    on_saved: Callable[[], None] | None,
) -> None:
    """Save, as SIGUSR1 asks for."""
    preemption.save_wanted = False
    for run in runs:
        run.save()
    _wait(runs, on_saved)
    on_message("Saved, as asked (SIGUSR1); training goes on.")


def _stretches(config: TrainConfig, updates: int) -> Iterator[tuple[int, int, bool]]:
    """Yield of each stretch between evaluations: epoch, update at its end, whether to save."""
    end = 0
    for epoch in range(config.optim.epochs):
        parts = [len(part) for part in np.array_split(np.arange(updates), config.evals_per_epoch)]
        due = epoch + 1 == config.optim.epochs or (epoch + 1) % config.checkpoint_every == 0
        for i, part in enumerate(parts):
            end += part
            yield epoch, end, due and i + 1 == len(parts)


def train_stretch(run: Run, epoch: int, end: int, watch: Watch) -> None:
    """Train until ``end`` updates are done, where that is not so already, and write the rows.

    It returns earlier where everything is to be saved first (SIGUSR1).

    Args:
        run: Where it is.
        epoch: Of the updates, from 0.
        end: Updates done afterwards; in this epoch.
        watch: Tells when to stop.

    Raises:
        NonFiniteLossError: If a loss or gradient is not finite.
        Preempted: If it was asked to stop; what is done is recorded.
        OSError: If rows cannot be written.
    """
    if run.step >= end:
        return
    batches = run.batches(epoch)
    rows = StretchRows([run], epoch, watch.progress)
    done = run.step
    problem: OSError | None = None
    start = time.perf_counter()
    try:
        while done < end and watch.goes_on():
            watch.profile.before_update()
            run.state, metrics = run.program.train_step(run.state, next(batches))
            done += 1
            rows.add(metrics)
            run.probe(done, run.state)
        run.probe.flush()  # The device is at work meanwhile.
        rows.wait()
        jax.block_until_ready(run.state)
    except OSError as error:
        problem = error
    _add_seconds([run], time.perf_counter() - start)
    rows.end(problem)
    if run.step < end and not watch.preemption.save_wanted:
        raise watch.preemption.stop()


def _train_group(runs: list[Run], epoch: int, end: int, watch: Watch) -> None:
    """Return the same for all seeds of a norm in one program; a run's time is its share."""
    done = runs[0].step
    if done >= end:
        return
    together = runs[0].program.train_together
    batches = zip(*(run.batches(epoch) for run in runs), strict=True)
    states = spread_over_devices(stack([run.state for run in runs]))
    rows = StretchRows(runs, epoch, watch.progress)
    problem: OSError | None = None
    start = time.perf_counter()
    try:
        while done < end and watch.goes_on():
            watch.profile.before_update()
            states, metrics = together(states, spread_over_devices(stack(next(batches))))
            done += 1
            rows.add(metrics)
            if runs[0].probe.looks_at(done):
                for run, state in zip(runs, unstack(states), strict=True):
                    run.probe(done, state)
        for run in runs:
            run.probe.flush()
        rows.wait()
        jax.block_until_ready(states)
    except OSError as error:
        problem = error
    _add_seconds(runs, time.perf_counter() - start)
    for run, state in zip(runs, unstack(states), strict=True):
        run.state = state
    rows.end(problem)
    if runs[0].step < end and not watch.preemption.save_wanted:
        raise watch.preemption.stop()


def _add_seconds(runs: list[Run], seconds: float) -> None:
    """Count the time of a stretch, the probe included."""
    for run in runs:
        run.train_seconds += seconds / len(runs)
        run.stretch_seconds += seconds / len(runs)


def _evaluate(run: Run, end: int, preemption: Preemption) -> None:
    """Evaluate after ``end`` updates, where that is not done already."""
    if run.evaluated_step >= end:
        return
    alphas = mean_alphas(run.program, run.state)
    row = {
        "step": run.step,
        **evaluate_test(run.program, run.state, run.dataset, preemption.check),
        "ms_per_step": 1e3 * run.stretch_seconds / (run.step - run.evaluated_step),
        **{f"alpha/{layer}": value for layer, value in alphas.items()},
    }
    if run.dataset.bad.skips:
        row["bad_images"] = len(run.dataset.bad.reasons())
    run.eval_rows.append(row)
    run.recorder.write("eval", [row])
    run.stretch_seconds = 0.0
