"""What a page shows: from the content of a run folder to the variables of the template."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from experiments.analysis import report, shift
from experiments.analysis.figures import curves, ics
from experiments.analysis.figures.panels import all_layers, shown_layers
from experiments.analysis.figures.style import FEW
from experiments.analysis.findings import findings
from experiments.analysis.page import tables
from experiments.analysis.page.svg import inline_svg
from experiments.analysis.page.words import legend, meaning
from experiments.analysis.results import Results
from experiments.config.experiment import to_dict

HERE = Path(__file__).parent


class Shown(NamedTuple):
    """A figure of the page."""

    name: str
    caption: str
    svg: Markup


def content(results: Results) -> dict[str, Any]:
    """Return all that the template shows."""
    compared = list(shift.comparisons(results))
    return {
        "title": results.title,
        "style": Markup((HERE / "style.css").read_text(encoding="utf-8")),
        "methods": results.labelled(results.names),
        "results": results,
        "probe": results.config.probe,
        "findings": findings(results, compared),
        "summary": tables.summary_table(results),
        "runs": report.runs_table(results),
        "verdicts": shift.verdicts(results, compared),
        "cost": shift.cost(results),
        "comparisons": tables.comparison_tables(results, compared),
        "bounds": tables.bounds_tables(results),
        "open": tables.open_table(results),
        "sections": to_dict(results.config),
        "versions": results.versions,
        "figures": {figure.name: figure for figure in figures(results)},
        "meaning": meaning,
        "legend": legend,
    }


def figures(results: Results) -> Iterator[Shown]:
    """Draw the figures that the run has data for."""
    runs = results.runs
    few = len(results.names) <= FEW
    spread = curves.spread(runs) if few else curves.spread(runs).replace(" ± ", ", without the ")
    caption = f"Test accuracy, and training loss (mean between evaluations); {spread}."
    yield _shown("curves", curves.curves_figure(results), caption)
    if curves.has_alpha(runs):
        alphas = f"Mean alpha of each layer after training; {curves.spread(runs)}."
        yield _shown("alphas", curves.alphas_figure(results), alphas)
    probed = results.probed()
    if not probed:
        return
    layers, shown = all_layers(results), shown_layers(results)
    some = "" if shown == layers else f" {len(shown)} of {len(layers)} layers are drawn."
    if len(probed) > 1:
        crowded = ics.is_crowded(results)
        ratios = (
            f"How many times as far each layer moved as with {results.label(probed[0])}, paired "
            "update by update on the same images; below 1 it moved less. "
            + (
                "Medians over updates and seeds."
                if crowded
                else "Marks: medians over updates and seeds, with quartiles; dots: each seed."
            )
        )
        yield _shown("ratios", ics.ratios_figure(results), ratios)
    for quantity in ("relative", "absolute"):
        distances = f"{shift.TITLES[quantity]}, medians over seeds.{some}"
        if len(probed) <= FEW:
            distances = (
                f"{shift.TITLES[quantity]}. Thick lines: medians over seeds; thin: single seeds, "
                "in the shade of their certificates, which is wider than the line only where they "
                "stayed open. Pale band: between the best closed-form lower and upper bounds."
                f"{some}"
            )
        yield _shown(quantity, ics.distances_figure(results, quantity), distances)
    bounds = (
        "The measured distance (mark) between the best closed-form bounds (bar); medians over "
        f"updates and seeds.{some}"
    )
    yield _shown("bounds", ics.bounds_figure(results), bounds)


def _shown(name: str, figure: Any, caption: str) -> Shown:
    return Shown(name, caption, inline_svg(figure, name, caption))
