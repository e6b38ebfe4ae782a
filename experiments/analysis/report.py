"""What a training job found: the summary that is stored, and the table at the end."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.console import Console

from experiments.analysis import shift
from experiments.analysis.findings import findings
from experiments.analysis.names import label
from experiments.analysis.results import Results, RunRows
from experiments.common.console import CommandConsole
from experiments.common.statistics import mean_std
from experiments.common.table import Column, Table, mean_std_column

MAX_COLUMNS = 5  # Norms side by side in the final table; more of them are its rows.
MAX_LAYERS = 12  # Rows of the table for alpha by depth; deeper networks show every k-th layer.


def updates_to(eval_rows: list[dict[str, Any]], target: float) -> int | None:
    """Return the updates done at the first evaluation with accuracy >= ``target``, or None.

    Example:
        >>> updates_to([{"step": 10, "accuracy": 0.9}, {"step": 20, "accuracy": 0.98}], 0.97)
        20
    """
    return next((row["step"] for row in eval_rows if row["accuracy"] >= target), None)


def _mean_std(values: list[float], digits: int) -> str:
    return mean_std_column("", digits).text(mean_std(values))


def time_ratio(runs: Sequence[RunRows], norm: str, base: str) -> float:
    """Return the median, over pairs of neighbouring stretches, of time per step norm / base."""
    times = {
        name: np.array([row["ms_per_step"] for run in runs if run.norm == name for row in run.eval])
        for name in (norm, base)
    }
    return float(np.median(times[norm] / times[base]))


def result_rows(results: list[dict[str, Any]], target: float) -> list[tuple[str, list[str]]]:
    """Return label and one cell per norm of each line of the final table."""
    by_norm: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_norm.setdefault(result["norm"], []).append(result)
    rows = []

    def row(label: str, cell: Callable[[list[dict[str, Any]]], str]) -> None:
        rows.append((label, [cell(group) for group in by_norm.values()]))

    row("test accuracy, %", _accuracy_cell)
    row(f"updates to {100 * target:g} %", _updates_cell)
    row("time per step, ms", lambda rs: _mean_std([r["ms_per_step"] for r in rs], 2))
    layers = max((list(r["alpha"]) for r in results), key=len)
    every = -(-len(layers) // MAX_LAYERS) if layers else 1
    for layer in layers[::every]:

        def mean_alpha(group: list[dict[str, Any]], layer: str = layer) -> str:
            return _mean_std([r["alpha"][layer] for r in group if layer in r["alpha"]], 3)

        row(f"mean alpha, {layer}", mean_alpha)
    return rows


def spread(results: list[dict[str, Any]]) -> str:
    """Say what the cells of the final table are."""
    n = len({result["seed"] for result in results})
    cells = f"mean ± sample standard deviation, n = {n} seeds" if n > 1 else "n = 1 seed"
    return f"{cells}; accuracy of the last state, not the best"


def result_table(
    results: list[dict[str, Any]],
    title: str,
    target: float,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """Return the final table, mean ± sample standard deviation over seeds.

    One column per norm; of more than ``MAX_COLUMNS`` one row per norm, and alpha only in the page.

    Args:
        results: Rows of a run's summary.
        title: Of the table.
        target: Accuracy for which updates are counted.
        labels: What people read for a norm, where that is not ``names.label``.
    """
    norms = list(dict.fromkeys(result["norm"] for result in results))
    norms = [labels.get(norm) or label(norm) for norm in norms]
    rows = [(what, *cells) for what, cells in result_rows(results, target)]
    names = norms
    if len(norms) > MAX_COLUMNS:
        rows = [row for row in rows if not row[0].startswith("mean alpha")]
        names = [row[0] for row in rows]
        rows = [(norm, *(row[i] for row in rows)) for i, norm in enumerate(norms, start=1)]
    columns = (Column(""), *(Column(name, "{}") for name in names))
    return Table("results", title, spread(results), columns, rows)


def runs_table(results: Results) -> Table:
    """Return one row per run."""
    columns = (
        *(Column("method"), Column("seed", "{:.0f}"), Column("test accuracy, %", "{:.2f}")),
        *(Column("correct", "{:.0f} of {:.0f}", ("correct", "of")),),
        *(Column("cross-entropy, nats", "{:.4g}"), Column("updates", "{:.0f}")),
        *(Column("time per step, ms", "{:.2f}"), Column("updates, s", "{:.1f}")),
        Column("probe by itself, s", "{:.1f}"),
    )
    rows: list[tuple[Any, ...]] = [
        (
            *(results.label(r["norm"]), r["seed"], 100 * r["accuracy"]),
            *((r["correct"], r["count"]), r["cross_entropy"], r["step"]),
            *(r["ms_per_step"], r["train_seconds"], r["probe_seconds"]),
        )
        for r in results.summary["results"]
    ]
    return Table("runs", "Every run", "the last state, not the best", columns, rows)


def _accuracy_cell(results: list[dict[str, Any]]) -> str:
    cell = _mean_std([100 * r["accuracy"] for r in results], 2)
    bad = sum(bool(r.get("not_finite")) for r in results)
    return f"{cell} (logits NaN in {bad} of {len(results)})" if bad else cell


def _updates_cell(results: list[dict[str, Any]]) -> str:
    reached = [r["updates_to_target"] for r in results if r["updates_to_target"] is not None]
    if len(reached) == len(results):
        return _mean_std(reached, 0)
    return f"{_mean_std(reached, 0)} ({len(reached)} of {len(results)} reached it)"


def print_results(results: Results, updates: int, console: Console) -> None:
    """Print what a finished run found: tables, and how to read them.

    Args:
        results: Of the run folder.
        updates: Updates per epoch.
        console: Where to.
    """
    config, summary, versions = results.config, results.summary, results.versions
    target = summary["target_accuracy"]
    console.print(result_table(summary["results"], results.title, target, results.labels))
    if isinstance(console, CommandConsole) and console.for_programs:
        console.print(runs_table(results))  # Its cells are numbers.
    base = config.norms[0]
    for norm in config.norms[1:]:
        ratio = time_ratio(results.runs, norm, base)
        probed = [name for name in (norm, base) if name in results.probed()]
        note = f"; only {results.label(probed[0])} is probed" if len(probed) == 1 else ""
        names = f"{results.label(norm)} / {results.label(base)}"
        console.print(f"Time per step, {names}: {ratio:.2f} (median over pairs{note})")
    every = -(-updates // config.evals_per_epoch)
    console.print(
        f"Updates to {100 * target:g} %: those done at the first evaluation that good; there is "
        f"one every {every} updates."
    )
    console.print(
        "Time per step: median over the stretches between evaluations, without compilation; the "
        "norms take turns, so each stretch of one is paired with its neighbour of the other."
    )
    shift.print_shift(results, console)
    devices = versions["devices"]
    hardware = f"{versions['cpus']} CPUs ({versions['cpu_model']}), {len(devices)} x {devices[0]}"
    since = "in all" if summary.get("sessions", 1) == 1 else "since it was last resumed"
    console.print(f"{hardware}; {summary['seconds']:.0f} s {since}.", soft_wrap=True)
    lead, each = findings(results)
    for sentence in (lead, *(each if len(each) < MAX_COLUMNS else ())):
        console.print(sentence)
