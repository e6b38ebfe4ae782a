"""Which norm moved less: the tables and sentences at the end of a training job."""

from collections.abc import Iterator, Sequence

from rich.console import Console

from experiments.analysis.comparison import (
    QUANTITIES,
    Certificates,
    LayerComparison,
    all_certificates,
    certificates,
    compare,
)
from experiments.analysis.results import Results
from experiments.common.statistics import largest, smallest
from experiments.common.table import Column, Table

TITLES = {
    "absolute": "Absolute: EM distance",
    "relative": "Relative: EM distance in spreads of the layer",
}


def comparisons(results: Results) -> Iterator[tuple[str, str, str, list[LayerComparison]]]:
    """Yield norm, base, quantity and layers for every probed norm but the first, the base."""
    if probed := results.probed():
        base, *others = probed
        for norm in others:
            for quantity in QUANTITIES:
                found = compare(results.ics(norm), results.ics(base), quantity)
                yield norm, base, quantity, found


def print_shift(results: Results, console: Console) -> None:
    """Print all that this module has to say of a run; nothing if nothing was probed."""
    still_open = certificate_table(results)
    for table in (*shift_tables(results), *([still_open] if still_open.rows else [])):
        console.print(table)
    for sentence in (*verdicts(results), cost(results)):
        if sentence:
            console.print(sentence)


def shift_tables(results: Results) -> list[Table]:
    """Return one table per comparison, one row per layer; none if nothing can be compared."""
    tables = []
    for norm, base, quantity, layers in comparisons(results):
        if not layers:
            continue
        lag = results.config.probe.lag
        title = f"Which moved less in {lag} update{'s' if lag > 1 else ''}? {TITLES[quantity]}"
        caption = (
            "medians over updates and seeds; the ratio is paired, update by update; "
            "certified: certificates do not overlap"
        )
        columns = (
            *(Column("layer"), *(Column(results.label(n), "{:.3g}") for n in (base, norm))),
            *(Column("ratio", "{:.2f}"), Column("over seeds", "{}")),
            Column("certified\nless, more", "{:.0f} %, {:.0f} %", ("less", "more"), 100),
            Column("moved\nless", "{}"),
        )
        rows = [
            (
                *(layer.layer, layer.median_base, layer.median, layer.ratio, seed_range(layer)),
                *(
                    (layer.certified_less, layer.certified_more),
                    moved_less(results, layer, norm, base),
                ),
            )
            for layer in layers
        ]
        tables.append(Table(f"{quantity}-{norm}", title, caption, columns, rows))
    return tables


def certificate_table(results: Results) -> Table:
    """Return the layers whose certificate stayed open somewhere."""
    columns = (
        *(Column("layer"), Column("method"), Column("open", "{:.0f}"), Column("of", "{:.0f}")),
        Column("largest gap", "{:.2g}"),
    )
    rows = [
        (layer.layer, results.label(norm), layer.open, layer.measured, layer.largest_gap)
        for norm, layer in open_layers(results)
        if layer.open
    ]
    return Table("open", "Certificates that stayed open", "", columns, rows)


def open_layers(results: Results) -> list[tuple[str, Certificates]]:
    """Return what became of the certificates of every norm and layer."""
    return [(norm, layer) for norm in results.probed() for layer in certificates(results.ics(norm))]


def verdicts(
    results: Results, compared: Sequence[tuple[str, str, str, list[LayerComparison]]] | None = None
) -> list[str]:
    """Return what was found, one sentence per comparison and one per norm's certificates.

    Args:
        results: Of a finished run or a comparison.
        compared: ``comparisons`` of it, if they are there already.
    """
    found = comparisons(results) if compared is None else compared
    return [
        _verdict(results.label(norm), results.label(base), quantity, _signs(norm, base, layers))
        for norm, base, quantity, layers in found
        if layers
    ] + [
        _certified(results.label(norm), all_certificates(results.ics(norm)))
        for norm in results.probed()
    ]


def moved_less(results: Results, layer: LayerComparison, norm: str, base: str) -> str:
    """Return which of the two moved less in a layer, in words."""
    less = layer.less(norm, base)
    return "seeds disagree" if less is None else results.label(less)


def cost(results: Results) -> str | None:
    """Say what a measurement takes by itself; None if nothing was probed."""
    found = []
    for norm in results.probed():
        seconds = [
            (r["probe_seconds"], r["train_seconds"])
            for r in results.summary["results"]
            if r["norm"] == norm
        ]
        probe, train = (sum(column) for column in zip(*seconds, strict=True))
        count = sum(len({row["step"] for row in rows}) for rows in results.ics(norm).values())
        found.append(
            f"{results.label(norm)} {1e3 * probe / count:.1f} ms ({100 * probe / train:.1f} %)"
        )
    if not found:
        return None
    config = results.config.probe
    return (
        f"A measurement on {config.images} images takes, by itself and in % of the {config.every} "
        f"updates between two: {', '.join(found)}. The time per step includes it."
    )


def seed_range(layer: LayerComparison) -> str:
    """Return the smallest and largest of the seeds' median ratios."""
    if len(layer.seed_ratios) < 2:
        return "-"
    return f"{smallest(layer.seed_ratios):.2f} to {largest(layer.seed_ratios):.2f}"


def _signs(norm: str, base: str, layers: list[LayerComparison]) -> tuple[int, int, list[float]]:
    """Return in how many layers the norm moved less, in how many more, and all ratios."""
    less = [layer.less(norm, base) for layer in layers]
    return less.count(norm), less.count(base), [layer.ratio for layer in layers]


def _verdict(norm: str, base: str, quantity: str, found: tuple[int, int, list[float]]) -> str:
    less, more, ratios = found
    undecided = len(ratios) - less - more
    disagree = f", seeds disagree in {undecided}" if undecided else ""
    return (
        f"{quantity.capitalize()} shift: {norm} moved less than {base} in {less} of {len(ratios)} "
        f"layers, more in {more}{disagree}; median ratios {_ratio(smallest(ratios))} to "
        f"{_ratio(largest(ratios))}."
    )


def _ratio(value: float) -> str:
    """Return a ratio with two digits at least.

    Example:
        >>> _ratio(0.5), _ratio(0.0039)
        ('0.50', '0.0039')
    """
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def _certified(norm: str, found: Certificates) -> str:
    failed = f"; {found.not_finite} not finite" if found.not_finite else ""
    return (
        f"Certificates of {norm}: {found.measured} distances, {found.open} open, largest gap "
        f"{found.largest_gap:.1e} of the distance{failed}."
    )
