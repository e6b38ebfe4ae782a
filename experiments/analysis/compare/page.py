"""The report of a comparison: the page of a run, with statistics and all methods side by side."""

from collections.abc import Mapping
from typing import Any

from experiments.analysis.compare.combine import Compared
from experiments.analysis.compare.figures import differences_figure
from experiments.analysis.page import inline_svg, render
from experiments.analysis.page.content import Shown, content
from experiments.common.table import Table


def comparison_page(
    compared: Compared, record: Mapping[str, Any], tables: Mapping[str, Table]
) -> str:
    """Return the page, complete: it opens offline.

    Args:
        compared: The runs.
        record: The numbers.
        tables: Made of the record.
    """
    values = content(compared.results)
    figure = differences_figure(record)
    if figure is not None:
        caption = (
            "Paired differences of test accuracy: mean with 95 % confidence interval (line, mark) "
            "and every seed (small dots)."
        )
        shown = Shown("differences", caption, inline_svg(figure, "differences", caption))
        values["figures"][shown.name] = shown
    first, *others = values["methods"]
    names = ", ".join(values["methods"]) if len(others) < 3 else f"{first} and {len(others)} others"
    title = f"{names} on {record['data']}"
    summary = [tables[key] for key in ("results", "pairs", "cost", "shift") if key in tables]
    more = {"title": title, "record": record, "tables": tables, "shown": summary}
    return render("compare.html.j2", values | more)
