"""One run of one norm and seed: what it consists of, how it starts or resumes, and is saved."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NoReturn

import jax

from experiments.common.errors import NonFiniteLossError
from experiments.common.files import missing, read_rows
from experiments.common.reasons import reason
from experiments.config.difference import check_resumable
from experiments.config.experiment import TrainConfig, to_dict
from experiments.data import Dataset, Pipeline
from experiments.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    Checkpoints,
    newest,
    restore,
)
from experiments.training.distributed import is_writer, on_writer, wait_for_all
from experiments.training.nonfinite import batch_of, dump
from experiments.training.probing import RunProbe
from experiments.training.program import Program
from experiments.training.record import NullRecorder, Recorder
from experiments.training.steps import Batch, TrainState


@dataclasses.dataclass
class Run:
    """One norm trained with one seed.

    Attributes:
        config: The configuration.
        program: The compiled functions of the norm.
        dataset: The images.
        seed: The seed.
        folder: Folder of its records and checkpoints.
        state: Current state.
        pipeline: The training batches; each run reads its own, and all see the same.
        recorder: Writes the rows.
        checkpoints: Its checkpoints.
        probe: Measures the shift of the layers; sees every state.
        train_rows: One row per update.
        eval_rows: One row per evaluation.
        stretch_seconds: Time of the updates since the last evaluation, the probe included.
        train_seconds: Time of all updates, the probe included.
    """

    config: TrainConfig
    program: Program
    dataset: Dataset
    seed: int
    folder: Path
    state: TrainState
    pipeline: Pipeline
    recorder: Recorder
    checkpoints: Checkpoints
    probe: RunProbe
    train_rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    eval_rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    stretch_seconds: float = 0.0
    train_seconds: float = 0.0
    _saved: tuple[int, int] = (-1, -1)
    _batches: tuple[int, Iterator[Batch]] | None = None

    @property
    def step(self) -> int:
        """Updates done and recorded."""
        return len(self.train_rows)

    @property
    def evaluated_step(self) -> int:
        """Updates done at the last evaluation."""
        return int(self.eval_rows[-1]["step"]) if self.eval_rows else 0

    @property
    def step_ms(self) -> list[float]:
        """Time per update of each stretch between two evaluations, milliseconds."""
        return [row["ms_per_step"] for row in self.eval_rows]

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Return the batches of ``epoch`` that are left; every call the same iterator."""
        if self._batches is None or self._batches[0] != epoch:
            self._batches = (epoch, self.pipeline.batches(epoch))
        return self._batches[1]

    def save(self) -> None:
        """Start to save a checkpoint, unless there is one already.

        A run that was stopped before the evaluation of its state has one without it, and gets a new
        one once it is evaluated.

        Raises:
            NonFiniteLossError: If a weight is not finite.
            CheckpointError: If it cannot be saved.
        """
        now = self.step, self.evaluated_step
        if now == self._saved:
            return
        self.probe.flush()  # A run that is resumed would not measure again.
        evaluated = now[0] == now[1] and self.eval_rows
        saved = self.checkpoints.save(
            Checkpoint(
                state=self.state,
                data=self.pipeline.state(),
                records=self.recorder.lengths(),
                config=to_dict(self.config),
                loop={
                    "evaluated_step": self.evaluated_step,
                    "stretch_seconds": self.stretch_seconds,
                    "train_seconds": self.train_seconds,
                    "probe_seconds": self.probe.seconds,
                    "probe_step": self.probe.kept_step,
                    "bad_images": list(self.dataset.bad.reasons()),
                },
                arrays=self.probe.arrays(),
                accuracy=self.eval_rows[-1]["accuracy"] if evaluated else None,
            )
        )
        if not saved:
            self.fail("a weight is not finite", self.step)
        self._saved = now

    def fail(self, what: str, step: int) -> NoReturn:
        """Write the batch of update ``step`` to a file, and raise.

        Raises:
            NonFiniteLossError: Always.
        """
        path = self.folder / f"nonfinite-{step}.npz"
        try:  # Neither a full disk nor an unreadable image hides what happened.
            batch = batch_of(self.dataset, self.seed, self.config.optim.batch_size, step)
            batch["image"] = self.program.augment(self.state.key, step - 1, batch["image"])
            about: dict[str, int | str] = {"step": step, "seed": self.seed}
            about["norm"] = self.program.norm
            finding = f"is in {path}" + (f": {dump(path, batch, about)}" if is_writer() else "")
        except (OSError, ValueError) as error:
            finding = f"could not be written to {path}: {reason(error)}"
        unsaved = ""
        try:
            self.checkpoints.wait()
        except CheckpointError as error:
            unsaved = f" ({error.problem[0].upper()}{error.problem[1:]}.)"
        raise NonFiniteLossError(
            f"{what} at update {step} (norm {self.program.norm}, seed {self.seed}); training "
            f"stopped. Its batch, as the network saw it, {finding}. The last good checkpoint, of "
            f"update {self.checkpoints.saved_step}, is in {self.folder / 'checkpoints'}.{unsaved} "
            "Try a smaller --optim.learning-rate."
        )


def run_folder(run_dir: Path, norm: str, seed: int) -> Path:
    """Return the folder, inside the run folder, of one norm and seed."""
    return run_dir / f"{norm}-seed{seed}"


def start(
    config: TrainConfig,
    program: Program,
    dataset: Dataset,
    seed: int,
    run_dir: Path,
    stack: ExitStack,
    on_message: Callable[[str], None] = lambda message: None,
) -> Run:
    """Return a run at its beginning or, if its folder is there, at its last good checkpoint.

    Args:
        config: The configuration.
        program: Compiled.
        dataset: The images.
        seed: The seed.
        run_dir: The run folder.
        stack: Closes what the run has open.
        on_message: Told whatever a user should know about what was resumed.

    Raises:
        CheckpointError: If there are checkpoints, but none can be used.
        ValueError: If the checkpoint is of another configuration, or the records are not complete.
    """
    folder = run_folder(run_dir, program.norm, seed)
    batch_size = config.optim.batch_size
    state = program.init(jax.random.key(seed), dataset.example(batch_size)["image"])
    found = None
    # Process 0 may make it before another one has looked.
    exists = on_writer(folder.exists)
    if exists:

        def usable(found: Checkpoint) -> None:
            check_resumable(found.config, config, folder)
            short = missing(folder, found.records)
            if short:
                raise CheckpointError(
                    f"{', '.join(short)} in {folder} ended before the checkpoint of update "
                    f"{found.step}: what is missing would not be trained again"
                )

        arrays = RunProbe.templates(state)
        found_here: list[Checkpoint] = []

        def find() -> int | None:
            newest_here = newest(folder / "checkpoints", state, arrays, usable, on_message)
            _check_begun(folder, newest_here)
            found_here.extend([newest_here] if newest_here else [])
            return newest_here.step if newest_here else None

        step = on_writer(find)
        if step is not None:
            # The others read the one that process 0 has chosen and checked.
            read = found_here or [restore(folder / "checkpoints", state, step, arrays)]
            found = read[0]
    lengths = None if not exists else found.records if found else {}
    recorder = Recorder(folder, lengths) if is_writer() else NullRecorder()
    stack.enter_context(recorder)
    wait_for_all(f"records of {folder}")  # Cut to their lengths, before any process reads them.
    checkpoints = Checkpoints(folder / "checkpoints", config.keep_checkpoints)
    stack.enter_context(checkpoints)
    place = None if program.train_step.transform.plain else program.train_step.place
    host, hosts = jax.process_index(), jax.process_count()
    pipeline = dataset.pipeline(seed, batch_size, host, hosts, place)
    stack.enter_context(closing(pipeline))
    probe = RunProbe(program, config.probe, recorder)
    run = Run(
        config=config,
        program=program,
        dataset=dataset,
        seed=seed,
        folder=folder,
        state=state,
        pipeline=pipeline,
        recorder=recorder,
        checkpoints=checkpoints,
        probe=probe,
    )
    if found is None:
        probe(0, state)
        # Even a run that fails in its first epoch has a checkpoint to look at; and a folder that
        # has rows has a checkpoint, because this one is complete before the first row.
        run.save()
        checkpoints.wait()
    else:
        _go_on(run, found)
        name = f"{program.norm}, seed {seed}"
        on_message(f"{name}: goes on after update {run.step}")
    return run


def _check_begun(folder: Path, found: Checkpoint | None) -> None:
    if found is None and read_rows(folder / "train.jsonl"):
        raise CheckpointError(
            f"{folder} has rows of training, but no checkpoint to go on from",
            "Restore its checkpoints from a copy, or give another --run-dir.",
        )


def _go_on(run: Run, found: Checkpoint) -> None:
    run.state = found.state
    run._saved = (found.step, found.loop["evaluated_step"])
    run.pipeline.restore(found.data)
    run.train_rows = read_rows(run.folder / "train.jsonl")
    run.eval_rows = read_rows(run.folder / "eval.jsonl")
    if [row["step"] for row in run.train_rows] != list(range(1, found.step + 1)):
        raise ValueError(
            f"{run.folder / 'train.jsonl'} does not have one row for each of the {found.step} "
            "updates of the checkpoint: it was changed after it was written. Restore it from a "
            "copy, or repeat the run."
        )
    run.stretch_seconds = found.loop["stretch_seconds"]
    run.train_seconds = found.loop["train_seconds"]
    run.probe.seconds = found.loop["probe_seconds"]
    run.probe.go_on(found.loop["probe_step"], found.arrays)
    run.dataset.bad.add_known(found.loop["bad_images"])
