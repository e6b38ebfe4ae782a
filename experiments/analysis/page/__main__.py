"""Writes the report of a finished run again: ``python -m experiments page RUN_FOLDER``."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from experiments.analysis.page import write_page
from experiments.analysis.results import read_results
from experiments.common.cli import run_cli


@dataclasses.dataclass(frozen=True)
class PageConfig:
    """Writes report.html of a finished run, from the rows in its folder."""

    run_folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """Folder that experiments.train wrote."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""

    def write(config: PageConfig) -> None:
        print(write_page(read_results(Path(config.run_folder))))

    return run_cli("python -m experiments page", PageConfig, arguments, write)


if __name__ == "__main__":
    sys.exit(main())
