"""Answers a question by runs: ``python -m experiments sweep --help``."""

import dataclasses
import math
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

from experiments.analysis.compare.record import to_json
from experiments.common.cli import command
from experiments.common.files import write_text
from experiments.common.table import to_csv, to_markdown
from experiments.studies.sweep.run import run_sweep
from experiments.studies.sweep.sweeps import ON_DIGITS, SWEEPS
from experiments.studies.sweep.table import sweep_table


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Train many networks and compare methods, paired by seed.

    Interrupted, the same command goes on where it was, in the middle of a run. On the digits one
    run of five seeds takes about a minute on two CPU cores; a sweep has 8 to 20. Those on CIFAR-10
    are for an accelerator, which trains all seeds of a method at once.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP ...")] = ()
    """Questions: units, alpha (what tightens the bound), learning-rate, batch-size, depth,
    label-noise, methods; default: all of these. On CIFAR-10 (JPEG): cifar10-resnet18 and
    cifar10-resnet110, as the authors train them, and in 15 epochs cifar10-resnet18-short and
    cifar10-resnet110-short; cifar10-study, seed by seed, for two CPU cores and a night or two
    (experiments/results/PROTOCOL.md)."""
    data_dir: str | None = None
    """For CIFAR-10: folder of the images, DATA_DIR/train/CLASS/ and DATA_DIR/test/CLASS/. Default:
    cifar10-jpeg."""
    out: Path = Path("runs/sweeps")
    """Folder of the runs, of NAME.json and of the tables NAME.csv and NAME.md; runs that are there
    are not repeated."""
    record: Path | None = None
    """Folder for another copy of NAME.json: experiments/results, whose README has its table. Runs
    of an hour have a file each in NAME/ there instead, as they end; those that have one are not
    repeated, so that a queue goes on in a clone, or on another machine."""

    seconds: float = math.inf
    """Save and stop after so many seconds; the same command goes on another time."""
    minutes: float = math.inf
    """The same in minutes, for long ones."""
    nice: bool = False
    """Let all other programs go first (priority 19): for a queue in the background."""

    def __post_init__(self) -> None:
        """Check the values."""
        for name in self.names:
            if name not in SWEEPS:
                raise ValueError(f"sweep (={name!r}) is unknown; choose from {', '.join(SWEEPS)}.")
        for option in ("seconds", "minutes"):
            if not (value := getattr(self, option)) > 0:
                raise ValueError(f"`{option}` (={value}) must be positive.")


def sweep(config: SweepConfig, console: Console) -> None:
    """Run sweeps; print and write their tables."""
    out, until = config.out, time.monotonic() + min(config.seconds, 60 * config.minutes)
    if config.nice:
        os.nice(19)
    # Methods that differ in numbers alone have programs in common.
    jax.config.update("jax_compilation_cache_dir", str(out.resolve() / "compiled"))
    for name in config.names or ON_DIGITS:
        record = run_sweep(name, SWEEPS[name], out, console, until, config.data_dir, config.record)
        if record is None:
            return
        table = sweep_table(record)
        console.print(table)
        write_text(out / f"{name}.json", to_json(record))
        if config.record is not None and not SWEEPS[name].apart:
            write_text(config.record / f"{name}.json", to_json(record))
        write_text(out / f"{name}.csv", to_csv(table))
        write_text(out / f"{name}.md", f"{to_markdown(table)}\n{table.caption}.\n")
        console.print(f"Record: {out / name}.json", soft_wrap=True)


main = command("sweep", SweepConfig, sweep)


if __name__ == "__main__":
    sys.exit(main())
