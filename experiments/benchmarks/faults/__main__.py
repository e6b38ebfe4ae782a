"""Kill training with SIGKILL, again and again: ``python -m experiments faults --kills 20``.

A training job on digits is run once undisturbed and once killed at random moments, some of them
during saves, and restarted with ``--resume auto`` until it is done. Then the two are compared:
final parameters, statistics, optimizer state and random keys, every row of the records, every
TensorBoard scalar, the summary and the figure must be equal bit by bit; measured times alone may
differ.

The undisturbed job compiles its programs anew; the other one keeps them in a compilation cache, so
that it starts quickly: that a program from the cache computes the same is tested with it.
"""

import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.analysis.compare.command import train_command
from experiments.analysis.compare.record import to_json
from experiments.benchmarks.faults.compare import compare_jobs
from experiments.benchmarks.faults.kill import (
    Kill,
    Progress,
    draw_moments,
    run_session,
    use_compilation_cache,
)
from experiments.benchmarks.faults.record import faults_record, faults_tables
from experiments.common.checks import check_seeds
from experiments.common.cli import command_line, run_cli
from experiments.common.console import CommandConsole
from experiments.common.files import write_text
from experiments.common.output_folder import check_new, new_folder, options_of
from experiments.config.experiment import ModelConfig, OptimConfig, ProbeConfig, TrainConfig

PROG = "python -m experiments faults"


class DifferenceError(ValueError):
    """The job that was killed did not end like the one that was not."""


@dataclasses.dataclass(frozen=True)
class FaultsConfig:
    """Kill a training job on digits again and again, and compares it with an undisturbed one."""

    kills: int = 20
    """How often the process is killed: a third during saves, a third while it trains, a third
    while it starts."""
    seed: int = 0
    """Seed of the moments."""
    folder: Path | None = None
    """Folder of both jobs; must not exist. Default: runs/faults-DATE-TIME."""
    norms: tuple[str, ...] = ("bn", "ubn")
    """Normalizations to train."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds to train."""
    epochs: int = 12
    """Epochs of each run; a checkpoint is saved after each."""
    batch_size: int = 64
    """Images per update."""
    blocks: tuple[int, ...] = (1,)
    """Residual blocks of each stage."""
    widths: tuple[int, ...] = (8,)
    """Channels of each stage."""
    probe_every: int = 10
    """Updates between two measurements of the shift; 0 for none."""
    json: Path | None = None
    """File to write what was found to, with versions and hardware; it must not exist."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.kills < 1:
            raise ValueError(f"`kills` (={self.kills}) must be a positive number.")
        check_seeds(seed=(self.seed,), seeds=self.seeds)

    def command(self, run_dir: Path) -> list[str]:
        """Return the command that trains in ``run_dir``, or goes on there."""
        training = TrainConfig(
            norms=self.norms,
            seeds=self.seeds,
            model=ModelConfig(blocks=self.blocks, widths=self.widths),
            optim=OptimConfig(epochs=self.epochs, batch_size=self.batch_size),
            probe=ProbeConfig(every=self.probe_every),
        )
        _, *words = shlex.split(train_command(training))
        kept = ("--checkpoint-every", "1", "--run-dir", str(run_dir), "--resume", "auto")
        return [sys.executable, *words, *kept]


def run(config: FaultsConfig, console: Console, command: str = PROG) -> None:
    """Run the fault test.

    Args:
        config: The options.
        console: Takes what is printed.
        command: For the record: the command that repeats it.

    Raises:
        DifferenceError: If anything differs.
        ValueError: If training fails by itself, or the folder exists.
    """
    check_new("json", config.json)
    folder = new_folder("folder", config.folder, "faults")
    reference, killed = folder / "undisturbed", folder / "killed"
    console.print(f"Training undisturbed in {reference}", soft_wrap=True)
    undisturbed = Progress(reference, 0)
    start = time.monotonic()
    run_session(config.command(reference), folder / "undisturbed.log", undisturbed, None)
    seconds = {"undisturbed": time.monotonic() - start}
    text = f"It took {seconds['undisturbed']:.0f} s. Now with {config.kills} kills, in {killed}"
    console.print(text, soft_wrap=True)
    use_compilation_cache(folder / "compilation_cache")
    progress = Progress(killed, undisturbed.recorded())
    kills: list[Kill] = []
    start = time.monotonic()
    train = config.command(killed)
    stretches = len(config.norms) * len(config.seeds) * config.epochs * TrainConfig.evals_per_epoch
    moments = draw_moments(
        config.kills,
        config.seed,
        undisturbed.start_seconds,
        undisturbed.train_seconds / stretches,
    )
    for i, moment in enumerate(moments, start=1):
        kill = run_session(train, folder / f"killed-{i}.log", progress, moment)
        if kill is None:
            raise ValueError(f"training was done before kill {i}; give more --epochs.")
        kills.append(kill)
        console.print(
            f"Kill {i} of {config.kills}, during {kill.during}: {kill.recorded} of "
            f"{progress.rows} updates recorded, {kill.saved} saved"
        )
    run_session(train, folder / "killed-last.log", progress, None)
    seconds["killed"] = time.monotonic() - start
    checks = compare_jobs(reference, killed)
    options = options_of(config, "folder", "json")
    record = faults_record(options, command, kills, checks, progress.rows, seconds)
    for table in faults_tables(record).values():
        console.print(table)
    if config.json is not None:
        write_text(config.json, to_json(record))
    differences = [text for check in checks for text in check.differences]
    if differences:
        shown = "\n  ".join(text[:300] for text in differences[:20])
        raise DifferenceError(
            f"the job that was killed differs in {len(differences)} things:\n  {shown}\nBoth are "
            f"in {folder}."
        )
    console.print(f"{len(kills)} kills, no difference.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    command = command_line(PROG, arguments, "--folder", "--json")
    return run_cli(PROG, FaultsConfig, arguments, lambda c: run(c, CommandConsole(), command))


if __name__ == "__main__":
    sys.exit(main())
