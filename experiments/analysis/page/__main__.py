"""Write the report of a finished run again: ``python -m experiments page RUN_FOLDER``."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from experiments.analysis.page import write_page
from experiments.analysis.results import read_results
from experiments.common.cli import command


@dataclasses.dataclass(frozen=True)
class PageConfig:
    """Write report.html of a finished run, from the rows in its folder."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")]
    """Folder that train wrote."""


def write(config: PageConfig, console: Console) -> None:
    """Write the page; print where it is."""
    page = write_page(read_results(config.run_folder))
    console.print(page, soft_wrap=True, highlight=False)


main = command("page", PageConfig, write)


if __name__ == "__main__":
    sys.exit(main())
