"""What the protocol asks for, as tables: outcomes, layers, measures."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from experiments.analysis.compare.combine import Compared
from experiments.analysis.compare.record import make_record
from experiments.analysis.compare.tables import alpha_table, cost_table, results_table
from experiments.analysis.comparison import all_certificates
from experiments.common.statistics import detectable, largest, median, smallest
from experiments.common.table import Column, Table, interval
from experiments.studies.measures.summary import shown
from experiments.studies.protocol.runs import DECIDES, MEASURES, LayerRatios, layer_ratios


def tables(compared: Compared) -> dict[str, Table]:
    """Return all tables by their keys: primary, cost, layers, measures, alpha.

    Args:
        compared: The runs, BatchNorm first.
    """
    record = make_record(compared, "")
    made = [
        *(primary_table(compared, record), cost_table(record), layers_table(compared)),
        *(measures_table(compared), alpha_table(record)),
    ]
    return {table.key: table for table in made}


def primary_table(compared: Compared, record: Mapping[str, Any]) -> Table:
    """Return question 1: accuracy, its difference, and which one as many seeds could find."""
    table = results_table(record)
    base, *others = compared.results.names
    theirs = compared.results.accuracies(base)
    found: list[float | None] = [None]
    for norm in others:
        ours = compared.results.accuracies(norm)
        found.append(detectable([a - b for a, b in zip(ours, theirs, strict=True)]))
    return table._replace(
        key="primary",
        caption=f"{table.caption}; power 0.8: the difference that a test at the level 0.05 with as "
        "many seeds finds with a probability of 80 %, if differences spread as these do",
        columns=(*table.columns, Column("power 0.8", "{:.2f}", factor=100)),
        rows=[(*row, cell) for row, cell in zip(table.rows, found, strict=True)],
    )


def layers_table(compared: Compared) -> Table:
    """Return question 2: in how many layers each method moved less, by certificates."""
    rows = []
    for norm, measure, layers in _ratios(compared, ("em", DECIDES)):
        of = all_certificates(compared.results.ics(norm))
        rows.append(
            (
                *(compared.results.label(norm), "relative" if measure == DECIDES else "absolute"),
                *_counts(layers),
                *(_median(layers), _range(layers), of.measured, of.open, of.largest_gap),
            )
        )
    columns = (
        *(Column("method"), Column("shift"), Column("layers", "{:.0f}")),
        *(Column("less", "{:.0f}"), Column("more", "{:.0f}"), Column("ratio", "{:.3f}")),
        *(interval("over layers", "{:.2f}"), Column("distances", "{:.0f}")),
        *(Column("open", "{:.0f}"), Column("largest gap", "{:.0e}")),
    )
    caption = (
        "Earth Mover distance in an update against BatchNorm's in the same one, medians over "
        "updates and seeds; ratio: median layer; less, more: the certificates' far ends are so in "
        "the median of every seed; relative: in units of the layer's own spread"
    )
    return Table("layers", "Do its layers shift less in an update?", caption, columns, rows)


def measures_table(compared: Compared) -> Table:
    """Return question 4: what each measure says of the layers, and whether it is the same."""
    rows = []
    decided: dict[str, dict[str, int]] = {}
    for norm, measure, layers in _ratios(compared, MEASURES):
        signs = {layer.layer: layer.sign for layer in layers}
        first = decided.setdefault(norm, signs)
        same = sum(first.get(layer) == sign for layer, sign in signs.items())
        rows.append(
            (
                *(compared.results.label(norm), shown(measure), *_counts(layers)),
                *(_median(layers), _range(layers), same),
            )
        )
    columns = (
        *(Column("method"), Column("measure"), Column("layers", "{:.0f}")),
        *(Column("less", "{:.0f}"), Column("more", "{:.0f}"), Column("ratio", "{:.2f}")),
        *(interval("over layers", "{:.2f}"), Column("same answer", "{:.0f}")),
    )
    caption = (
        "as the table before, by every measure; same answer: layers of which it says, less, more "
        f"or neither, what the first one ({DECIDES}) does"
    )
    return Table("measures", "Do other measures say the same?", caption, columns, rows)


def _ratios(
    compared: Compared, measures: Iterable[str]
) -> Iterator[tuple[str, str, list[LayerRatios]]]:
    for norm in compared.results.names[1:]:
        for measure in measures:
            if layers := layer_ratios(compared, norm, measure):
                yield norm, measure, layers


def _counts(layers: list[LayerRatios]) -> tuple[int, int, int]:
    signs = [layer.sign for layer in layers]
    return len(layers), signs.count(-1), signs.count(1)


def _median(layers: list[LayerRatios]) -> float:
    return median(median(layer.seeds) for layer in layers)


def _range(layers: list[LayerRatios]) -> tuple[float, float]:
    each = [median(layer.seeds) for layer in layers]
    return smallest(each), largest(each)
