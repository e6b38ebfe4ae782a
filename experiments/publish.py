"""Write the tables and figures of the pages from records: ``python -m experiments publish``.

The pages are README.md, those of docs/ and experiments/results/README.md. In a page, a table stands
between two comments, and is written again from the file it names, relative to the repository::

    <!-- table: experiments/results/NAME.json results | method | n | test accuracy, % -->
    <!-- end of table -->

The word after the file is the key of the table; names of columns follow (default: all columns).

A folder of runs in place of the file (the CIFAR-10 study) has the tables of ``studies.protocol``.

An image of the page named ``NAME_FIGURE.png``, FIGURE being a key of ``FIGURES``, is drawn
again from ``NAME.json`` in its folder, or from the runs in the folder ``NAME`` there if it is a key
of ``RUNS_FIGURES``, unless its checksum is theirs.
"""

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from matplotlib.figure import Figure
from PIL import Image

from experiments.analysis.compare import Compared
from experiments.analysis.compare.figures import differences_figure, shift_figure
from experiments.analysis.compare.tables import tables
from experiments.analysis.corruptions import corruption_table
from experiments.analysis.figures.corruptions import corruptions_figure
from experiments.analysis.figures.ics import distances_figure, ratios_figure
from experiments.benchmarks.faults.record import faults_tables
from experiments.benchmarks.pod_check.record import pod_tables
from experiments.benchmarks.tables import bench_tables
from experiments.common.cli import command
from experiments.common.files import replacing, write_text
from experiments.common.table import Table, select_columns, to_markdown
from experiments.studies.bounds.figure import bounds_figure
from experiments.studies.bounds.study import Row as BoundsRow
from experiments.studies.bounds.table import bounds_table
from experiments.studies.measures import summary as measures
from experiments.studies.measures.figure import correlations_figure
from experiments.studies.noise.figure import noise_figure
from experiments.studies.noise.study import Row as NoiseRow
from experiments.studies.noise.table import noise_tables
from experiments.studies.protocol.figures import accuracy_figure, measures_figure
from experiments.studies.protocol.runs import read_study
from experiments.studies.protocol.tables import tables as runs_tables
from experiments.studies.regularization.figure import regularization_figure
from experiments.studies.regularization.summary import tables as regularization_tables
from experiments.studies.singularities import table_of
from experiments.studies.sweep.table import sweep_table
from experiments.studies.zoo.record import record_figure, record_table

ROOT = Path(__file__).parents[1]
BEGIN = r"<!-- table: (?P<file>\S+) (?P<key>\w+)(?P<columns>( \| [^|\n]+?)*) -->\n"
END = "<!-- end of table -->"
FIGURES: Mapping[str, Callable[[Mapping[str, Any]], Figure | None]] = {
    "differences": differences_figure,
    "shift": shift_figure,
    "methods": record_figure,
    "corruptions": corruptions_figure,
    "distances": lambda record: bounds_figure(_rows(BoundsRow, record)),
    "accuracies": lambda record: noise_figure(_rows(NoiseRow, record), record["title"]),
    "correlations": correlations_figure,
    "weights": lambda record: regularization_figure(_named(record), record["title"]),
}
RUNS_FIGURES: Mapping[str, Callable[[Compared], Figure]] = {
    "accuracy": accuracy_figure,
    "drift": lambda compared: distances_figure(compared.results, "relative"),
    "ratios": lambda compared: ratios_figure(compared.results),
    "measures": measures_figure,
}
STUDIES: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Table]]] = {
    "bounds": lambda record: {"bounds": bounds_table(_rows(BoundsRow, record))},
    "measures": measures.tables,
    "noise": lambda record: noise_tables(_rows(NoiseRow, record)),
    "regularization": lambda record: regularization_tables(_named(record), record["title"]),
    "singularities": lambda record: {"singularities": table_of(record["rows"])},
}
_KEYS = "|".join((*FIGURES, *RUNS_FIGURES))
SHOWN = re.compile(rf"!\[[^\]]*\]\(([^)\s]*\w_({_KEYS})\.png)\)")
SOURCE = "Source"  # A keyword of PNG: what the image was made of.
MARKED = re.compile(f"(?P<begin>{BEGIN})(?P<table>.*?)(?P<end>{END})", re.DOTALL)


def pages(root: Path = ROOT) -> list[Path]:
    """Return the Markdown files with tables and figures of records."""
    results = root / "experiments" / "results"
    return [root / "README.md", *sorted((root / "docs").rglob("*.md")), results / "README.md"]


def update(text: str, root: Path = ROOT) -> str:
    """Return ``text`` with every marked table written again.

    Args:
        text: Markdown.
        root: Folder that the names of files are relative to.

    Raises:
        ValueError: If a marker has no end, or names no file, table or column.
    """
    begun, ended = text.count("<!-- table:"), text.count(END)
    if not begun == ended == len(MARKED.findall(text)):
        raise ValueError(
            f"{begun} markers `<!-- table: FILE KEY -->` and {ended} `{END}` do not make "
            f"{max(begun, ended)} tables; each needs both, on lines of their own."
        )
    return MARKED.sub(lambda found: found["begin"] + _table(found, root) + found["end"], text)


def figures(page: Path) -> list[Path]:
    """Return the figures that a page shows and that were drawn from another state of the record."""
    text = page.read_text(encoding="utf-8")
    paths = [(page.parent / found[1]).resolve() for found in SHOWN.finditer(text)]
    return [path for path in paths if not path.is_file() or _source(path) != _checksum(path)]


def made(path: Path) -> Figure | None:
    """Return one of ``figures``; None if its record has nothing to draw."""
    key, source = path.stem.rpartition("_")[2], _source_of(path)
    if key in RUNS_FIGURES:
        return RUNS_FIGURES[key](read_study(source))
    record = json.loads(source.read_text(encoding="utf-8"))
    (part, *_) = record.get("settings", [record])
    return FIGURES[key](part)


def draw(path: Path) -> None:
    """Draw one of ``figures``; the file keeps the checksum of what it was made of."""
    figure = made(path)
    if figure is None:
        raise ValueError(f"{path.name}: {_source_of(path).name} has nothing to draw.")
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=110, format="png", metadata={SOURCE: _checksum(path)})


def _source_of(figure: Path) -> Path:
    """Return the record, or the folder of the runs, that a figure is made of."""
    name, _, key = figure.stem.rpartition("_")
    return figure.with_name(name if key in RUNS_FIGURES else f"{name}.json")


def _checksum(figure: Path) -> str:
    source = _source_of(figure)
    files = sorted(source.glob("*.json")) if source.is_dir() else [source]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _source(figure: Path) -> str | None:
    with Image.open(figure) as image:
        return image.info.get(SOURCE)


def _table(found: re.Match[str], root: Path) -> str:
    path = root / found["file"]
    if not path.exists():
        raise ValueError(
            f"{found['file']} does not exist; make it by python -m experiments compare (or, a "
            "folder of runs, by sweep) with --record."
        )
    try:
        its_tables = (
            runs_tables(read_study(path))
            if path.is_dir()
            else tables_of(json.loads(path.read_text(encoding="utf-8")))
        )
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{found['file']} is damaged ({type(error).__name__}: {error}); restore it from a "
            "copy, or make it again by the command in it."
        ) from error
    if found["key"] not in its_tables:
        raise ValueError(
            f"table (={found['key']!r}) is unknown in {found['file']}; choose from "
            f"{', '.join(its_tables)}."
        )
    columns = [name.strip() for name in found["columns"].split(" | ") if name.strip()]
    return to_markdown(select_columns(its_tables[found["key"]], columns))


def tables_of(record: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of a record, by their keys: of whichever command wrote it."""
    if "sweep" in record:
        return {"sweep": sweep_table(record)}
    if "zoo" in record:
        return {"zoo": record_table(record)}
    if "study" in record:
        return STUDIES[record["study"]](record)
    if "corruptions" in record:
        return {"corruptions": corruption_table(record)}
    for key, make in {"faults": faults_tables, "pod_check": pod_tables}.items():
        if key in record:
            return make(record)
    return bench_tables(record) if "benchmark" in record else tables(record)


def _rows(kind: Any, record: Mapping[str, Any]) -> list[Any]:
    return [kind(**row) for row in _named(record)]


def _named(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(record["fields"], row, strict=True)) for row in record["rows"]]


@dataclasses.dataclass(frozen=True)
class PublishConfig:
    """Write the tables and figures of pages again, from the records in experiments/results/."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Markdown files; default: README.md, those of docs/ and experiments/results/README.md."""


def publish(config: PublishConfig) -> None:
    """Write the tables and figures of the files again."""
    for path in config.files or pages():
        if not path.is_file():
            raise ValueError(f"{path} does not exist; give Markdown files, or none for all pages.")
        write_text(path, update(path.read_text(encoding="utf-8")))
        for figure in figures(path):
            draw(figure)


main = command("publish", PublishConfig, lambda config, _: publish(config))


if __name__ == "__main__":
    sys.exit(main())
