"""Writes the page, and the figures beside it, into the run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from experiments import record, shift_report
from experiments.ics_plots import plot_ics
from experiments.page.content import HERE, content
from experiments.plots import plot_curves
from experiments.results import Results


def write_report(results: Results) -> Path:
    """Writes ``curves.png``, ``ics.png`` if anything was probed, and ``report.html``.

    Args:
        results: Of a finished run.

    Returns:
        The page.
    """
    folder = results.folder
    with record.replacing(folder / "curves.png") as path:
        plot_curves(results.runs, path, results.title, results.summary["target_accuracy"])
    if results.probed():
        with record.replacing(folder / "ics.png") as path:
            plot_ics(results, path, results.title)
    return write_page(results)


def write_page(results: Results) -> Path:
    """Writes ``report.html`` into the run folder, in the place of the one before.

    Args:
        results: Of a finished run.

    Returns:
        The file.
    """
    path = results.folder / "report.html"
    write_text(path, render("page.html.j2", content(results)))
    return path


def render(template: str, values: Mapping[str, Any]) -> str:
    """Returns a page.

    Args:
        template: File name, in this folder.
        values: Its variables.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = shift_report.percent
    environment.filters["seed_range"] = shift_report.seed_range
    return environment.get_template(template).render(values)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all, in the place of the one before; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with record.replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
