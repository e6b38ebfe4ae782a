"""Writes the page, and the figures beside it, into the run folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from experiments.analysis.figures.curves import plot_curves
from experiments.analysis.figures.ics import plot_ics
from experiments.analysis.page.content import HERE, content
from experiments.analysis.results import Results
from experiments.common import files


def write_report(results: Results) -> Path:
    """Write ``curves.png``, ``ics.png`` if anything was probed, and ``report.html``.

    Args:
        results: Of a finished run.

    Returns:
        The page.
    """
    folder = results.folder
    with files.replacing(folder / "curves.png") as path:
        plot_curves(results, path)
    if results.probed():
        with files.replacing(folder / "ics.png") as path:
            plot_ics(results, path)
    return write_page(results)


def write_page(results: Results) -> Path:
    """Write ``report.html`` into the run folder, in the place of the one before.

    Args:
        results: Of a finished run.

    Returns:
        The file.
    """
    path = results.folder / "report.html"
    files.write_text(path, render("page.html.j2", content(results)))
    return path


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a page.

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
    return environment.get_template(template).render(values)
