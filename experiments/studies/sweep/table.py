"""The table of a sweep, from its record alone."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.analysis.compare.record import number
from experiments.analysis.compare.tables import cost_table, results_table, shift_table
from experiments.analysis.names import label
from experiments.common.statistics import largest, smallest
from experiments.common.table import Column, Table, interval


def sweep_table(record: Mapping[str, Any]) -> Table:
    """Return one row per setting and method: accuracy, paired difference, shift, alpha.

    Args:
        record: As ``run_sweep`` gives it, maybe through JSON.
    """
    rows: list[tuple[Any, ...]] = []
    columns: tuple[Column, ...] = ()
    for setting in record["settings"]:
        arms = setting.get("arms", [])
        if arms:
            results, cost, shift = (
                by_method(make(setting)) for make in (results_table, cost_table, shift_table)
            )
            columns = _columns(setting)
        for arm in arms:
            name = label(arm["name"])
            found, moved = results[name], shift.get(name, {})
            difference = [
                next(value for key, value in found.items() if key.startswith("minus ")),
                *(found["95 % interval"], found["p"]),
            ]
            if setting.get("base_failed"):
                difference, moved = [None] * 3, {}
            alphas = [float(np.mean([*map(number, values)])) for values in arm["alpha"].values()]
            rows.append(
                (
                    *(setting["setting"], name, found["n"], found["test accuracy, %"]),
                    *difference,
                    next(value for key, value in cost[name].items() if key.startswith("epochs")),
                    *(moved.get("absolute: ratio"), moved.get("relative: ratio")),
                    *(moved.get("relative: less"), moved.get("relative: more")),
                    (smallest(alphas), largest(alphas)) if alphas else None,
                )
            )
        for failed in setting["failed"]:
            # Older records have the command's older name, experiments.train.
            words = "failed: " + re.split(r"experiments[. ]train ", failed["command"])[-1]
            rows.append((setting["setting"], words, *[None] * 11))
    caption = (
        "differences and ratios are against the first method of the setting, paired by seed, and "
        "there are none where that failed; "
        "n seeds, mean ± sample standard deviation; 95 % confidence interval and p-value of "
        "Student's paired t-test, not adjusted for the number of comparisons; shift: range over "
        "layers of the median ratio of Earth Mover distances in an update, absolute and in "
        "spreads of the layer (relative); less, more: layers in which all seeds agree, relative; "
        "alpha: range of the layers' means after training"
    )
    return Table("sweep", record["question"], caption, columns, rows)


def by_method(table: Table) -> dict[str, dict[str, Any]]:
    """Return the rows of a table by their first cell, cells by the names of columns."""
    names = [column.name for column in table.columns]
    return {row[0]: dict(zip(names, row, strict=True)) for row in table.rows}


def _columns(setting: Mapping[str, Any]) -> tuple[Column, ...]:
    results = {c.name: c for c in results_table(setting).columns}
    epochs = cost_table(setting).columns[1]
    return (
        *(Column("setting"), Column("method"), results["n"], results["test accuracy, %"]),
        Column("minus the first", "{:+.2f}", factor=100),
        *(results["95 % interval"], results["p"], epochs),
        *(interval(f"{quantity} shift, ratio", "{:.2f}") for quantity in ("absolute", "relative")),
        *(Column(f"moved {word}", "{:.0f}") for word in ("less", "more")),
        interval("alpha", "{:.2f}"),
    )
