"""Answers a question by runs on the digits: ``python -m experiments.sweep --help``."""

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

from experiments.cli import run_cli
from experiments.compare.record import to_json
from experiments.compare.table import to_csv, to_markdown, to_rich
from experiments.page import write_text
from experiments.sweep.run import run_sweep
from experiments.sweep.sweeps import SWEEPS
from experiments.sweep.table import sweep_table


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Trains many small networks on the digits and compares methods, paired by seed.

    Interrupted, the same command goes on where it was. One run of five seeds takes about a minute
    on two CPU cores; a sweep has 8 to 20.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP ...")] = ()
    """Questions: units, alpha (what tightens the bound), learning-rate, batch-size, depth,
    label-noise, methods. Default: all of them."""
    out: str = "runs/sweeps"
    """Folder of the runs, of NAME.json and of the tables NAME.csv and NAME.md; runs that are there
    are not repeated."""
    record: str | None = None
    """Folder for another copy of NAME.json: experiments/results, whose tables are in the README."""

    seconds: float = math.inf
    """Start no run after so many seconds; the same command goes on another time."""

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in self.names:
            if name not in SWEEPS:
                raise ValueError(f"sweep (={name!r}) is unknown; choose from {', '.join(SWEEPS)}.")


def sweep(config: SweepConfig, console: Console) -> None:
    """Runs sweeps; prints and writes their tables."""
    out, until = Path(config.out), time.monotonic() + config.seconds
    # Methods that differ in numbers alone have programs in common.
    jax.config.update("jax_compilation_cache_dir", str(out.resolve() / "compiled"))
    for name in config.names or SWEEPS:
        record = run_sweep(name, SWEEPS[name], out, console, until)
        if record is None:
            return
        table = sweep_table(record)
        console.print(to_rich(table))
        for folder in [config.out] + ([config.record] if config.record else []):
            write_text(Path(folder) / f"{name}.json", to_json(record))
        write_text(out / f"{name}.csv", to_csv(table))
        write_text(out / f"{name}.md", f"{to_markdown(table)}\n{table.caption}.\n")
        console.print(f"Record: {out / name}.json", soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return run_cli(
        "python -m experiments.sweep",
        SweepConfig,
        arguments,
        lambda config: sweep(config, Console()),
    )


if __name__ == "__main__":
    sys.exit(main())
