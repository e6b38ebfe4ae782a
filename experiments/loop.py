"""The training loop of one seed: all norms in turns, on the same batches."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments import checkpoint
from experiments.build import Program, evaluate_test, mean_alphas, updates_per_epoch
from experiments.config import TrainConfig
from experiments.data import Dataset, Pipeline
from experiments.probing import RunProbe
from experiments.record import Recorder
from experiments.steps import Batch, TrainState


class NonFiniteLossError(RuntimeError):
    """The loss, or its gradient, was not a finite number; training stopped."""


@dataclasses.dataclass
class Run:
    """One norm trained with one seed.

    Attributes:
        program: The compiled functions of the norm.
        seed: The seed.
        folder: Folder of its records and checkpoints.
        state: Current state.
        pipeline: The training batches; each run reads its own, and all see the same.
        recorder: Writes the rows.
        manager: Writes the checkpoints.
        probe: Measures the shift of the layers; sees every state.
        train_rows: One row per update.
        eval_rows: One row per evaluation.
        step_ms: Time per update of each stretch between two evaluations, milliseconds.
        train_seconds: Time of all updates, without that of the probe.
        saved_step: Step of the last good checkpoint.
    """

    program: Program
    seed: int
    folder: Path
    state: TrainState
    pipeline: Pipeline
    recorder: Recorder
    manager: ocp.CheckpointManager
    probe: RunProbe
    train_rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    eval_rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    step_ms: list[float] = dataclasses.field(default_factory=list)
    train_seconds: float = 0.0
    saved_step: int = 0


def run_folder(run_dir: Path, norm: str, seed: int) -> Path:
    """Returns the folder, inside the run folder, of one norm and seed."""
    return run_dir / f"{norm}-seed{seed}"


def train_seed(
    config: TrainConfig,
    programs: list[Program],
    dataset: Dataset,
    seed: int,
    run_dir: Path,
    on_progress: Callable[[int], None] = lambda updates: None,
) -> list[Run]:
    """Trains each norm from the same initial weights, on the same batches.

    Norms take turns between two evaluations, in alternating order, so that whatever else slows the
    machine down meets all of them alike: their times per step can be compared pair by pair.

    Args:
        config: The configuration.
        programs: One compiled program per norm.
        dataset: The images.
        seed: Seed of initial weights, data order and augmentation.
        run_dir: The run folder.
        on_progress: Called with the number of updates just done.

    Returns:
        One finished run per norm.

    Raises:
        NonFiniteLossError: If a loss or gradient is not finite; the last good checkpoint stays.
    """
    updates = updates_per_epoch(config, dataset)
    with ExitStack() as stack:
        runs = [_start(config, program, dataset, seed, run_dir, stack) for program in programs]
        turn = 0
        for epoch in range(config.optim.epochs):
            batches = [run.pipeline.batches(epoch) for run in runs]
            turns = list(zip(runs, batches, strict=True))
            for stretch in np.array_split(np.arange(updates), config.evals_per_epoch):
                for run, batch in turns if turn % 2 == 0 else turns[::-1]:
                    _train_stretch(run, islice(batch, len(stretch)), epoch)
                    _evaluate(run, dataset)
                    on_progress(len(stretch))
                turn += 1
            last = epoch + 1 == config.optim.epochs
            if last or (epoch + 1) % config.checkpoint_every == 0:
                for run in runs:
                    _save(run)
    return runs


def _start(
    config: TrainConfig,
    program: Program,
    dataset: Dataset,
    seed: int,
    run_dir: Path,
    stack: ExitStack,
) -> Run:
    folder = run_folder(run_dir, program.norm, seed)
    recorder = stack.enter_context(Recorder(folder))
    manager = stack.enter_context(checkpoint.open_manager(folder / "checkpoints"))
    batch_size = config.optim.batch_size
    pipeline = stack.enter_context(closing(dataset.pipeline(seed, batch_size)))
    state = program.init(jax.random.key(seed), dataset.example(batch_size)["image"])
    probe = RunProbe(program.probe, config.probe, recorder)
    run = Run(program, seed, folder, state, pipeline, recorder, manager, probe)
    probe(0, state)
    # Even a run that fails in its first epoch has a checkpoint to look at.
    _save(run)
    return run


def _train_stretch(run: Run, batches: Iterator[Batch], epoch: int) -> None:
    done = len(run.train_rows)
    metrics = []
    probed = run.probe.seconds
    start = time.perf_counter()
    for batch in batches:
        run.state, values = run.program.train_step(run.state, batch)
        metrics.append(values)
        run.probe(done + len(metrics), run.state)
    jax.block_until_ready(run.state)
    seconds = time.perf_counter() - start - (run.probe.seconds - probed)
    run.train_seconds += seconds
    run.step_ms.append(1e3 * seconds / len(metrics))
    # Numbers are fetched once per stretch: fetching them at every update would wait for each.
    rates = np.asarray(jax.vmap(run.program.schedule)(done + np.arange(len(metrics))))
    rows = [
        {
            "step": done + i + 1,
            "epoch": epoch + 1,
            "learning_rate": float(rates[i]),
            **{name: float(value) for name, value in values.items()},
        }
        for i, values in enumerate(jax.device_get(metrics))
    ]
    run.train_rows.extend(rows)
    run.recorder.write("train", rows)
    for row in rows:
        # Both, because relu(nan) can be 0 when compiled for a CPU: the loss then looks finite, but
        # not its gradient.
        if not np.isfinite([row["loss"], row["grad_norm"]]).all():
            what = f"loss is {row['loss']:.6g}, the norm of its gradient {row['grad_norm']:.6g},"
            _fail(run, what, int(row["step"]))


def _evaluate(run: Run, dataset: Dataset) -> None:
    alphas = mean_alphas(run.program, run.state)
    row = {
        "step": len(run.train_rows),
        **evaluate_test(run.program, run.state, dataset),
        "ms_per_step": run.step_ms[-1],
        **{f"alpha/{layer}": value for layer, value in alphas.items()},
    }
    if dataset.bad.skips:
        row["bad_images"] = len(dataset.bad.reasons())
    run.eval_rows.append(row)
    run.recorder.write("eval", [row])


def _save(run: Run) -> None:
    if not checkpoint.save(run.manager, run.state):
        _fail(run, "a weight is not finite", len(run.train_rows))
    run.saved_step = len(run.train_rows)


def _fail(run: Run, what: str, step: int) -> NoReturn:
    run.manager.wait_until_finished()
    raise NonFiniteLossError(
        f"{what} at update {step} (norm {run.program.norm}, seed {run.seed}); training "
        f"stopped. The last good checkpoint, of update {run.saved_step}, is in "
        f"{run.folder / 'checkpoints'}. Try a smaller --optim.learning-rate."
    )
