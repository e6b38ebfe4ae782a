"""The training loop: all norms in turns, on the same batches."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.common.errors import Preempted
from experiments.config.experiment import TrainConfig
from experiments.data import Dataset
from experiments.training.preemption import Preemption
from experiments.training.program import Program, evaluate_test, mean_alphas, updates_per_epoch
from experiments.training.run import Run, start
from experiments.training.seeds import spread_over_devices, stack, unstack


def train_seeds(
    config: TrainConfig,
    programs: list[Program],
    dataset: Dataset,
    seeds: Sequence[int],
    run_dir: Path,
    preemption: Preemption | None = None,
    on_progress: Callable[[int], None] = lambda updates: None,
    on_message: Callable[[str], None] = lambda message: None,
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
        on_progress: Called with the number of updates just done, or found done.
        on_message: Told what a user should know about runs that are resumed.

    Returns:
        One finished run per norm and seed, norm by norm.

    Raises:
        NonFiniteLossError: If a loss or gradient is not finite; the last good checkpoint stays.
        Preempted: If it was asked to stop; all runs are saved.
        CheckpointError: If a checkpoint cannot be saved, or none can be restored.
    """
    updates = updates_per_epoch(config, dataset)
    preemption = preemption or Preemption()
    with ExitStack() as opened:
        opened.callback(setattr, preemption, "busy", False)  # Last, when all is saved and closed.
        groups = [
            [start(config, program, dataset, s, run_dir, opened, on_message) for s in seeds]
            for program in programs
        ]
        runs = [run for group in groups for run in group]
        for run in runs:
            on_progress(run.step)
        preemption.busy = True
        try:
            for turn, (epoch, end, save) in enumerate(_stretches(config, updates)):
                for group in groups if turn % 2 == 0 else groups[::-1]:
                    before = sum(run.step for run in group)
                    # After an interruption one may have done more than another.
                    if len(group) > 1 and len({run.step for run in group}) == 1:
                        _train_group(group, epoch, end, preemption)
                    for run in group:
                        train_stretch(run, epoch, end, preemption)
                        _evaluate(run, end, preemption)
                    on_progress(sum(run.step for run in group) - before)
                for run in runs:
                    if save and run.step == end:
                        run.save()
        except Preempted:
            for run in runs:
                run.save()
            for run in runs:
                run.checkpoints.wait()
            raise
    return runs


def _stretches(config: TrainConfig, updates: int) -> Iterator[tuple[int, int, bool]]:
    """Yield of each stretch between evaluations: epoch, update at its end, whether to save."""
    end = 0
    for epoch in range(config.optim.epochs):
        parts = [len(part) for part in np.array_split(np.arange(updates), config.evals_per_epoch)]
        due = epoch + 1 == config.optim.epochs or (epoch + 1) % config.checkpoint_every == 0
        for i, part in enumerate(parts):
            end += part
            yield epoch, end, due and i + 1 == len(parts)


def train_stretch(run: Run, epoch: int, end: int, preemption: Preemption) -> None:
    """Train until ``end`` updates are done, where that is not so already, and write the rows.

    Args:
        run: Where it is.
        epoch: Of the updates, from 0.
        end: Updates done afterwards; in this epoch.
        preemption: Tells when to stop.

    Raises:
        NonFiniteLossError: If a loss or gradient is not finite.
        Preempted: If it was asked to stop; what is done is recorded.
        OSError: If rows cannot be written.
    """
    done = run.step
    if done >= end:
        return
    batches = run.batches(epoch)
    metrics: list[Any] = []
    problem: OSError | None = None
    start = time.perf_counter()
    try:
        while done + len(metrics) < end and not preemption.requested():
            run.state, values = run.program.train_step(run.state, next(batches))
            metrics.append(values)
            run.probe(done + len(metrics), run.state)
        run.probe.flush()  # The device is at work meanwhile.
        jax.block_until_ready(run.state)
    except OSError as error:
        problem = error
    _record(run, epoch, metrics, time.perf_counter() - start, problem)
    if run.step < end:
        raise Preempted


def _train_group(runs: list[Run], epoch: int, end: int, preemption: Preemption) -> None:
    """Return the same for all seeds of a norm in one program; a run's time is its share."""
    done = runs[0].step
    if done >= end:
        return
    together = runs[0].program.train_together
    batches = zip(*(run.batches(epoch) for run in runs), strict=True)
    states = spread_over_devices(stack([run.state for run in runs]))
    metrics: list[Any] = []
    problem: OSError | None = None
    start = time.perf_counter()
    try:
        while done + len(metrics) < end and not preemption.requested():
            states, values = together(states, spread_over_devices(stack(next(batches))))
            metrics.append(values)
            if runs[0].probe.looks_at(done + len(metrics)):
                for run, state in zip(runs, unstack(states), strict=True):
                    run.probe(done + len(metrics), state)
        for run in runs:
            run.probe.flush()
        jax.block_until_ready(states)
    except OSError as error:
        problem = error
    seconds = time.perf_counter() - start
    rows = [unstack(values) for values in jax.device_get(metrics)]
    for i, (run, state) in enumerate(zip(runs, unstack(states), strict=True)):
        run.state = state
        _record(run, epoch, [row[i] for row in rows], seconds / len(runs), problem)
    if runs[0].step < end:
        raise Preempted


def _record(
    run: Run, epoch: int, metrics: list[Any], seconds: float, problem: OSError | None = None
) -> None:
    """Write the rows of a stretch that took so many seconds, and check them.

    Args:
        run: What was trained.
        epoch: Of the updates, from 0.
        metrics: Of each update.
        seconds: How long they took, the probe included.
        problem: What ended the stretch early; raised here, unless a loss is not finite.
    """
    done = run.step
    run.train_seconds += seconds
    run.stretch_seconds += seconds
    # Numbers are fetched once per stretch: fetching them at every update would wait for each.
    rows = [
        {
            "step": done + i + 1,
            "epoch": epoch + 1,
            "learning_rate": float(run.program.rates[done + i]),
            **{name: float(value) for name, value in values.items()},
        }
        for i, values in enumerate(jax.device_get(metrics))
    ]
    run.train_rows.extend(rows)
    # Both, because relu(nan) can be 0 when compiled for a CPU: the loss then looks finite, but not
    # its gradient.
    bad = [r for r in rows if not np.isfinite([r["loss"], r["grad_norm"]]).all()]
    try:
        if problem:
            raise problem
        run.recorder.write("train", rows)
    except OSError:
        if not bad:  # Else that the disk is full, say, is the smaller trouble.
            raise
    if bad:
        loss, norm = bad[0]["loss"], bad[0]["grad_norm"]
        what = f"loss is {loss:.6g}, the norm of its gradient {norm:.6g},"
        run.fail(what, int(bad[0]["step"]))


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
