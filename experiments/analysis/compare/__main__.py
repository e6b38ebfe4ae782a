"""Compare finished runs: ``python -m experiments compare RUN...``."""

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from experiments.analysis.compare.combine import Compared, combine
from experiments.analysis.compare.page import comparison_page
from experiments.analysis.compare.record import make_record, to_json
from experiments.analysis.compare.tables import tables
from experiments.common.cli import command
from experiments.common.files import write_text
from experiments.common.output_folder import check_new, whole_folder
from experiments.common.table import Table, to_csv, to_markdown

SHOWN = ("results", "pairs", "cost", "shift")  # In the terminal; the files have all.
ALSO = ("distances", "layers", "alpha", "bounds", "epochs")


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Compare the methods of one or several finished runs, seed by seed.

    Prints test accuracy (n, mean, standard deviation, paired differences with 95 % confidence
    intervals and p-values), epochs to a target, time per step and in which layers the outputs
    shifted less. Refuses to compare runs that differ in anything but the method, and says in what.

    Example: one run with --norms bn ubn, another with --norms ubn --norm.unit rms; then
    python -m experiments compare runs/a runs/b --out runs/compared
    """

    run_folders: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")
    ]
    """Folders that train wrote; each may hold several methods and seeds."""
    base: str | None = None
    """Method with which the others are compared, by its name in the table ('ubn unit=rms').
    Default: the first."""
    target: float | None = None
    """Test accuracy, in (0, 1], for which epochs are counted. Default: the runs' own."""
    vary: tuple[str, ...] = ()
    """Further fields of the configuration that are compared: optim.learning_rate, or a group of
    them: optim."""
    allow: tuple[str, ...] = ()
    """Fields that may differ and do not matter: versions.git_commit. seeds: compare those that all
    have."""
    out: Path | None = None
    """Folder for report.html (with figures), tables.md, a CSV file per table, and record.json; must
    not exist. Default: nothing is written."""
    record: Path | None = None
    """File for record.json alone, as in experiments/results/; an older one is replaced."""
    every_table: bool = False
    """Print all tables: shift, alpha and bounds of every layer too."""


def run_compare(config: CompareConfig, console: Console) -> dict[str, Any]:
    """Compare, print and write; return the record.

    Raises:
        ValueError: If the runs cannot be compared, or ``out`` exists.
    """
    check_new("out", config.out)
    compared = combine(
        config.run_folders,
        base=config.base,
        vary=config.vary,
        allow=config.allow,
        target=config.target,
    )
    record = make_record(compared, compare_command(config))
    found = tables(record)
    for key in (*SHOWN, *(ALSO if config.every_table else ())):
        if key in found:
            console.print(found[key])
    for note in compared.notes:
        console.print(note, soft_wrap=True)
    if config.record is not None:
        write_text(config.record, to_json(record))
        console.print(f"Record: {config.record}", soft_wrap=True)
    if config.out is not None:
        write_all(config.out, compared, record, found)
        console.print(f"Report: {config.out / 'report.html'}", soft_wrap=True)
    return record


def write_all(
    folder: Path, compared: Compared, record: Mapping[str, Any], found: Mapping[str, Table]
) -> None:
    """Write ``report.html``, ``tables.md``, ``record.json`` and one CSV file per table."""
    markdown = [f"## {t.title}\n\n{to_markdown(t)}\n{t.caption}.\n" for t in found.values()]
    with whole_folder("out", folder) as unfinished:
        write_text(unfinished / "report.html", comparison_page(compared, record, found))
        write_text(unfinished / "record.json", to_json(record))
        write_text(unfinished / "tables.md", "\n".join(markdown))
        for table in found.values():
            write_text(unfinished / f"{table.key}.csv", to_csv(table))


def compare_command(config: CompareConfig) -> str:
    """Return the command line that compares so, without what it writes."""
    words = ["python", "-m", "experiments", "compare", *map(str, config.run_folders)]
    for name in ("base", "target"):
        if (value := getattr(config, name)) is not None:
            words += [f"--{name}", str(value)]
    for name in ("vary", "allow"):
        if values := getattr(config, name):
            words += [f"--{name}", *values]
    return shlex.join(words)


main = command("compare", CompareConfig, run_compare)


if __name__ == "__main__":
    sys.exit(main())
