"""What the study found, from its runs: correlations, gradients, and their tables."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.analysis.names import label
from experiments.common.statistics import mean_std, paired
from experiments.common.table import Column, Table, mean_std_column
from experiments.studies.measures.correlations import against_accuracy, agreement

Rows = Sequence[Mapping[str, Any]]
LEAST = 0.2  # Accuracy of a run that learned something: twice that of chance.
# Columns of the probe's rows, by the names under which they are compared.
COLUMNS = {
    "em": "value",
    "em, relative": "relative",
    "mean drift": "mean_drift",
    "std drift": "std_drift",
    "channel W1": "channel_w1",
    "MMD": "mmd",
    "KMM sample size": "kmm_sample_size",
    "Gaussian W2": "gaussian_w2",
    "estimation, mean": "estimation_mean",
    "estimation, std": "estimation_std",
}
CERTIFIED = {"absolute": "em", "relative": "em, relative"}
# Similarities: what is compared falls as they grow.
TURNED = {"KMM sample size": "KMM samples lost", "gradient cosine": "1 - gradient cosine"}
GRADIENTS = ("convolutions, L2 / norm", "convolutions, cosine")
_INTERVAL = "{:+.2f} ({:+.2f} to {:+.2f})"
_PARTS = ("value", "low", "high")


def summarize(rows: Rows, resamples: int) -> dict[str, Any]:
    """Return the record's part that comes from the runs.

    Returns:
        ``study``; ``runs``: of each its case, accuracy and medians over times and layers;
        ``correlations`` and ``accuracy`` by data set and measure; ``gradients`` by data set and
        method; ``open``: distances whose certificate leaves more than 0.1 %.
    """
    correlations, accuracy, gradients = {}, {}, {}
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        kept = [row for row in rows if row["dataset"] == dataset and learned(row)]
        if len(kept) < 3:
            continue
        values = {name: _array(kept, name) for name in measures(kept)}
        correlations[dataset] = {
            target: {
                shown(name): agreement(values[name], values[of], resamples)
                for name in values
                if name not in CERTIFIED.values()
            }
            for target, of in CERTIFIED.items()
        }
        reached = np.array([row["accuracy"] for row in kept])
        methods = _numbers([row["method"] for row in kept])
        recipes = _numbers([_setting(row)[:2] for row in kept])
        accuracy[dataset] = {
            shown(name): against_accuracy(_medians(value), reached, methods, recipes, resamples)
            for name, value in values.items()
        }
        gradients[dataset] = _gradients(kept)
    return {
        "study": "measures",
        "runs": [_small(row) for row in rows],
        "correlations": correlations,
        "accuracy": accuracy,
        "gradients": gradients,
        "open": sum(sum(row["measured"].get("open", [])) for row in rows),
    }


def learned(row: Mapping[str, Any]) -> bool:
    """Return whether a run learned something: others move nothing, or everything."""
    return row["finite"] and row["accuracy"] >= LEAST


def measures(rows: Rows) -> list[str]:
    """Return the names of what was measured per layer."""
    apart = (*GRADIENTS, "open")
    return [name for name in rows[0]["measured"] if name not in apart]


def shown(name: str) -> str:
    """Return the name in tables."""
    return TURNED.get(name, name)


def _array(rows: Rows, name: str) -> np.ndarray:
    """Return what was measured, (runs, times, layers), so that it grows with shift."""
    values = np.array([row["measured"][name] for row in rows], np.float64)
    return -values if name in TURNED else values


def _medians(values: np.ndarray) -> np.ndarray:
    found = np.full(len(values), np.nan)
    some = np.isfinite(values).any((1, 2))
    found[some] = np.nanmedian(values[some], axis=(1, 2))
    return found


def _numbers(names: Sequence[Any]) -> np.ndarray:
    order = list(dict.fromkeys(names))
    return np.array([order.index(name) for name in names])


def _small(row: Mapping[str, Any]) -> dict[str, Any]:
    case = ("dataset", "method", "learning_rate", "batch_size", "seed", "finite", "accuracy")
    small = {name: row[name] for name in case}
    whole = learned(row)
    names = measures([row]) if whole else []
    medians = {name: _medians(np.array([row["measured"][name]], np.float64))[0] for name in names}
    return small | {"median": {name: float(f"{value:.4g}") for name, value in medians.items()}}


def _gradients(rows: Rows) -> dict[str, Any]:
    """Gradient ICS of convolutions by method; means over times and settings, one per seed."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found: dict[str, Any] = {}
    for method in methods:
        mine = {_setting(row): row for row in rows if row["method"] == method}
        other = {_setting(row): row for row in rows if row["method"] == "none"}
        both = [setting for setting in mine if setting in other]
        entry: dict[str, Any] = {"runs": len(mine), "pairs": len(both)}
        for name in GRADIENTS:
            entry[name] = _by_seed(mine, list(mine), name)
            entry[f"{name}, paired"] = _by_seed(mine, both, name)
            entry[f"{name}, none"] = _by_seed(other, both, name)
        found[method] = entry
    return found


def _setting(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (row["learning_rate"], row["batch_size"], row["seed"])


def _by_seed(rows: Mapping[Any, Any], settings: Sequence[Any], name: str) -> list[float]:
    seeds = dict.fromkeys(setting[2] for setting in settings)
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # The median of nothing: no gradient at all.
        for seed in seeds:
            mine = [rows[s]["measured"][name] for s in settings if s[2] == seed]
            found.append(float(np.nanmean([np.nanmedian(values) for values in mine])))
    return found


def tables(record: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of a record by their keys: measures, accuracy, gradients."""
    counts = {
        dataset: sum(row["dataset"] == dataset and learned(row) for row in record["runs"])
        for dataset in record["correlations"]
    }
    runs = ", ".join(f"{count} runs on {dataset}" for dataset, count in counts.items())
    caption = f"Spearman's rank correlation (95 % interval by bootstrap over runs); {runs}"
    lines = [
        (
            *(dataset, name),
            *(tuple(of[target][name][how]) for target in CERTIFIED for how in ("pooled", "both")),
        )
        for dataset, of in record["correlations"].items()
        for name in of["absolute"]
    ]
    kinds = [f"{target}, {how}" for target in CERTIFIED for how in ("all", "one layer and time")]
    agree = Table(
        "measures",
        "Measures of shift against the certified Earth Mover distance",
        caption,
        (
            *(Column("data"), Column("measure")),
            *(Column(kind, _INTERVAL, _PARTS) for kind in kinds),
        ),
        lines,
    )
    decides = Table(
        "accuracy",
        "Median shift of a run against its test accuracy",
        f"{caption}; a recipe is a learning rate and a batch size",
        (
            *(Column("data"), Column("measure"), Column("all runs", _INTERVAL, _PARTS)),
            Column("within methods", _INTERVAL, _PARTS),
            Column("within recipes", _INTERVAL, _PARTS),
            Column("only seeds differ", _INTERVAL, _PARTS),
        ),
        [
            (dataset, name, *(tuple(of[how]) for how in ("all", "methods", "recipes", "both")))
            for dataset, measured in record["accuracy"].items()
            for name, of in measured.items()
        ],
    )
    return {"measures": agree, "accuracy": decides, "gradients": _gradient_table(record)}


def _gradient_table(record: Mapping[str, Any]) -> Table:
    lines: list[tuple[Any, ...]] = []
    for dataset, of in record["gradients"].items():
        for method, entry in of.items():
            cells: list[Any] = []
            for name in GRADIENTS:
                found = paired(entry[f"{name}, paired"], entry[f"{name}, none"])
                cells.append(mean_std(entry[name]))
                apart = method != "none" and found.n
                cells.append((found.mean, found.low, found.high) if apart else None)
            lines.append((dataset, label(method), entry["runs"], entry["pairs"], *cells))
    style, parts = "{:+.3f} ({:+.3f} to {:+.3f})", ("mean", "low", "high")
    columns = (
        *(Column("data"), Column("method"), Column("runs", "{:.0f}"), Column("pairs", "{:.0f}")),
        *(mean_std_column("L2 / norm", 3), Column("minus no norm", style, parts)),
        *(mean_std_column("cosine", 3), Column("cosine minus no norm", style, parts)),
    )
    caption = (
        "medians over convolutions and times; mean ± standard deviation over seeds of means over "
        "settings; differences are of equal settings and seeds (95 % interval, Student's t)"
    )
    return Table("gradients", "Gradient ICS of the convolutions", caption, columns, lines)
