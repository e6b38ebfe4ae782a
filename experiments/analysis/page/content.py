"""What a page shows: from the content of a run folder to the variables of the template."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from experiments.analysis import report, shift
from experiments.analysis.comparison import LayerComparison, certificates, gap, tightness
from experiments.analysis.figures import curves, ics
from experiments.analysis.figures.panels import all_layers, shown_layers
from experiments.analysis.page.svg import inline_svg
from experiments.analysis.results import Results
from experiments.common.statistics import largest
from experiments.config.experiment import to_dict
from unitnorm_jax.ics import row_name

MAX_OPEN = 50  # Rows of the list of open certificates; the largest gaps come first.
HERE = Path(__file__).parent


class Shown(NamedTuple):
    """A figure of the page."""

    name: str
    caption: str
    svg: Markup


def content(results: Results) -> dict[str, Any]:
    """Return all that the template shows."""
    rows = results.summary["results"]
    still_open = open_rows(results)
    return {
        "title": results.title,
        "style": Markup((HERE / "style.css").read_text(encoding="utf-8")),
        "label": curves.label,
        "results": results,
        "probe": results.config.probe,
        "summary": report.result_rows(rows, results.summary["target_accuracy"]),
        "spread": report.spread(rows),
        "verdicts": shift.verdicts(results),
        "cost": shift.cost(results),
        "comparisons": [
            (norm, base, quantity, with_certificates(results, norm, base, layers))
            for norm, base, quantity, layers in shift.comparisons(results)
        ],
        "bounds": [(norm, tightness(results.ics(norm))) for norm in results.probed()],
        "open": still_open[:MAX_OPEN],
        "open_count": len(still_open),
        "sections": to_dict(results.config),
        "versions": results.versions,
        "figures": {figure.name: figure for figure in figures(results)},
        "quantities": shift.TITLES,
    }


def with_certificates(
    results: Results, norm: str, base: str, layers: list[LayerComparison]
) -> list[dict[str, Any]]:
    """Return comparisons with the open certificates and largest gap of both sides."""
    found = [
        {layer.layer: layer for layer in certificates(results.ics(name))} for name in (base, norm)
    ]
    rows = []
    for layer in layers:
        sides = [side[layer.layer] for side in found]
        rows.append(
            {
                "of": layer,
                "less": layer.less(norm, base),
                "open": ", ".join(str(side.open) for side in sides),
                "gap": largest(side.largest_gap for side in sides),
            }
        )
    return rows


def open_rows(results: Results) -> list[dict[str, Any]]:
    """Return the measurements whose certificate stayed open, the largest gap first."""
    rows = [
        {"norm": run.norm, "seed": run.seed, "name": row_name(row), "gap": gap(row), **row}
        for run in results.runs
        for row in run.ics
        if not row["exact"] and not row["reason"]
    ]
    return sorted(rows, key=lambda row: (not math.isnan(row["gap"]), -row["gap"]))


def figures(results: Results) -> Iterator[Shown]:
    """Draw the figures that the run has data for."""
    runs, norms = results.runs, [curves.label(norm) for norm in results.names]
    target = results.summary["target_accuracy"]
    caption = f"Training loss (mean between evaluations) and test accuracy; {curves.spread(runs)}."
    yield _shown("curves", curves.curves_figure(runs, target), caption)
    if curves.has_alpha(runs):
        alphas = f"Mean alpha of each layer after training; {curves.spread(runs)}."
        yield _shown("alphas", curves.alphas_figure(runs), alphas)
    probed = results.probed()
    if not probed:
        return
    layers, shown = all_layers(results), shown_layers(results)
    some = "" if shown == layers else f" {len(shown)} of {len(layers)} layers are drawn."
    if len(probed) > 1:
        ratios = (
            f"How much further each layer moved than with {curves.label(probed[0])}, paired update "
            "by update on the same images. Marks: medians over updates and seeds."
        )
        yield _shown("ratios", ics.ratios_figure(results), ratios)
    for quantity in ("relative", "absolute"):
        distances = (
            f"{shift.TITLES[quantity]}. Thick lines: medians over seeds; thin: "
            "single seeds, in the shade of their certificates, which is wider than the line only "
            "where they stayed open. Pale band: between the best closed-form lower and upper "
            f"bounds.{some}"
        )
        yield _shown(quantity, ics.distances_figure(results, quantity), distances)
    bounds = (
        "The measured distance (dot) between the best closed-form bounds (bar); medians over "
        f"updates and seeds, {' and '.join(norms)}.{some}"
    )
    yield _shown("bounds", ics.bounds_figure(results), bounds)


def _shown(name: str, figure: Any, caption: str) -> Shown:
    return Shown(name, caption, inline_svg(figure, name, caption))
