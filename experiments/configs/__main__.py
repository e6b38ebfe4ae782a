"""List the experiments, or shows one: ``python -m experiments configs [NAME]``."""

import dataclasses
import sys
from typing import Annotated, Any

import tyro
from rich.console import Console

from experiments.analysis.compare.command import train_command
from experiments.common.cli import command
from experiments.common.table import Column, Table
from experiments.configs import load, names


@dataclasses.dataclass(frozen=True)
class ConfigsConfig:
    """List the experiments that train knows by name, or shows the card of one."""

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
    columns = (Column("experiment"), Column("what it trains"))
    rows: list[tuple[Any, ...]] = [(name, load(name)[1].splitlines()[0]) for name in names()]
    console.print(Table("experiments", "", "", columns, rows))


main = command("configs", ConfigsConfig, show)


if __name__ == "__main__":
    sys.exit(main())
