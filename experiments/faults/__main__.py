"""Kills training with SIGKILL, again and again: ``python -m experiments.faults --kills 20``.

A training job on digits is run once undisturbed and once killed at random moments, some of them
during saves, and restarted with ``--resume auto`` until it is done. Then the two are compared:
final parameters, statistics, optimizer state and random keys, every row of the records, every
TensorBoard scalar, the summary and the figure must be equal bit by bit; measured times alone may
differ.

The undisturbed job compiles its programs anew; the other one keeps them in a compilation cache, so
that it starts quickly: that a program from the cache computes the same is tested with it.
"""

import dataclasses
import datetime
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.cli import run_cli
from experiments.config import TrainConfig
from experiments.faults.compare import TIMES, Check, compare_jobs
from experiments.faults.kill import (
    Kill,
    Progress,
    draw_moments,
    run_session,
    train_command,
    use_compilation_cache,
)


class DifferenceError(ValueError):
    """The job that was killed did not end like the one that was not."""


@dataclasses.dataclass(frozen=True)
class FaultsConfig:
    """Kills a training job on digits again and again, and compares it with an undisturbed one."""

    kills: int = 20
    """How often the process is killed: a third during saves, a third while it trains, a third
    while it starts."""
    seed: int = 0
    """Seed of the moments."""
    folder: str | None = None
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

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.kills < 1:
            raise ValueError(f"`kills` (={self.kills}) must be a positive number.")

    @property
    def arguments(self) -> list[str]:
        """Options of ``experiments.train``."""
        options = {
            "norms": self.norms,
            "seeds": self.seeds,
            "checkpoint-every": (1,),
            "optim.epochs": (self.epochs,),
            "optim.batch-size": (self.batch_size,),
            "model.blocks": self.blocks,
            "model.widths": self.widths,
            "probe.every": (self.probe_every,),
        }
        return [
            text for name, values in options.items() for text in (f"--{name}", *map(str, values))
        ]


def run(config: FaultsConfig, console: Console) -> None:
    """Runs the fault test.

    Raises:
        DifferenceError: If anything differs.
        ValueError: If training fails by itself, or the folder exists.
    """
    folder = _new_folder(config.folder)
    reference, killed = folder / "undisturbed", folder / "killed"
    console.print(f"Training undisturbed in {reference}", soft_wrap=True)
    undisturbed = Progress(reference, 0)
    start = time.monotonic()
    command = train_command(reference, config.arguments)
    run_session(command, folder / "undisturbed.log", undisturbed, None)
    seconds = time.monotonic() - start
    text = f"It took {seconds:.0f} s. Now with {config.kills} kills, in {killed}"
    console.print(text, soft_wrap=True)
    use_compilation_cache(folder / "compilation_cache")
    progress = Progress(killed, undisturbed.recorded())
    kills: list[Kill] = []
    command = train_command(killed, config.arguments)
    stretches = len(config.norms) * len(config.seeds) * config.epochs * TrainConfig.evals_per_epoch
    moments = draw_moments(
        config.kills,
        config.seed,
        undisturbed.start_seconds,
        undisturbed.train_seconds / stretches,
    )
    for i, moment in enumerate(moments, start=1):
        kill = run_session(command, folder / f"killed-{i}.log", progress, moment)
        if kill is None:
            raise ValueError(f"training was done before kill {i}; give more --epochs.")
        kills.append(kill)
        console.print(
            f"Kill {i} of {config.kills}, during {kill.during}: {kill.recorded} of "
            f"{progress.rows} updates recorded, {kill.saved} saved"
        )
    run_session(command, folder / "killed-last.log", progress, None)
    checks = compare_jobs(reference, killed)
    console.print(kill_table(kills))
    console.print(check_table(checks))
    differences = [text for check in checks for text in check.differences]
    if differences:
        shown = "\n  ".join(text[:300] for text in differences[:20])
        raise DifferenceError(
            f"the job that was killed differs in {len(differences)} things:\n  {shown}\nBoth are "
            f"in {folder}."
        )
    console.print(
        f"{len(kills)} kills, no difference (times are not compared: {', '.join(sorted(TIMES))})."
    )


def _new_folder(name: str | None) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(name) if name is not None else Path("runs") / f"faults-{now}"
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise ValueError(f"folder (={str(folder)!r}) exists; give another --folder.") from None
    return folder


def kill_table(kills: list[Kill]) -> Table:
    """Returns how many kills met what, and how many updates they made the next process repeat."""
    table = Table(title="Kills")
    for name in ("killed during", "kills", "updates repeated: mean", "most"):
        table.add_column(name, justify="left" if name == "killed during" else "right")
    for during in ("start", "training", "save"):
        repeated = [kill.recorded - kill.saved for kill in kills if kill.during == during]
        if repeated:
            mean = f"{sum(repeated) / len(repeated):.0f}"
            table.add_row(during, str(len(repeated)), mean, str(max(repeated)))
    return table


def check_table(checks: list[Check]) -> Table:
    """Returns what was compared, and what differs."""
    table = Table(title="Killed against undisturbed, bit by bit")
    for name in ("", "compared", "differ"):
        table.add_column(name, justify="right" if name else "left")
    for check in checks:
        table.add_row(check.name, f"{check.size:,}", f"{len(check.differences):,}")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return run_cli(
        "python -m experiments.faults", FaultsConfig, arguments, lambda c: run(c, Console())
    )


if __name__ == "__main__":
    sys.exit(main())
