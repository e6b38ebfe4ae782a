"""Lists the experiments, or shows one: ``python -m experiments configs [NAME]``."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.analysis.compare.command import train_command
from experiments.common.cli import run_cli
from experiments.configs import load, names


@dataclasses.dataclass(frozen=True)
class ConfigsConfig:
    """Lists the experiments that experiments.train knows by name, or shows the card of one."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None
    """The experiment to show; default: list all."""


def show(config: ConfigsConfig, console: Console) -> None:
    """Print the list, or a run card with its options."""
    if config.name is not None:
        options, card = load(config.name)
        console.print(card, highlight=False)
        console.print("\nThe same, option by option:")
        console.print(train_command(options), soft_wrap=True, highlight=False)
        return
    table = Table(box=box.SIMPLE, padding=(0, 1))
    table.add_column("python -m experiments train", no_wrap=True)
    table.add_column("")
    for name in names():
        table.add_row(name, load(name)[1].splitlines()[0])
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return run_cli(
        "python -m experiments configs",
        ConfigsConfig,
        arguments,
        lambda config: show(config, Console()),
    )


if __name__ == "__main__":
    sys.exit(main())
