"""What a run folder holds, read back: all that figures and report are made of."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from experiments.analysis.names import label, labels_of
from experiments.common import files
from experiments.common.statistics import mean_std
from experiments.config.experiment import TrainConfig, from_dict
from experiments.config.networks import TITLES

Rows = list[dict[str, Any]]
KINDS = ("train", "eval", "ics")
RUN_FILE = 1  # The format of a run file; raise it when a name or a meaning changes.


class RunRows(NamedTuple):
    """The rows of one norm and seed; ``ics`` is empty where nothing was probed."""

    norm: str
    seed: int
    train: Rows
    eval: Rows
    ics: Rows


class Results(NamedTuple):
    """A finished run folder, or several put together (``experiments.analysis.compare``).

    Attributes:
        folder: The folder.
        config: Its configuration.
        versions: Code, libraries and hardware.
        summary: Final numbers of every run.
        runs: The rows of every run.
        names: What ``norm`` is in summary and runs, in order: the norms of the configuration, or
            with their options where several folders are put together.
        data: What ``data.json`` says of the images; empty in runs of earlier versions.
        labels: What people read for a norm; of those that are not in it, ``names.label``.
    """

    folder: Path
    config: TrainConfig
    versions: dict[str, Any]
    summary: dict[str, Any]
    runs: list[RunRows]
    names: tuple[str, ...]
    data: Mapping[str, Any] = MappingProxyType({})
    labels: Mapping[str, str] = MappingProxyType({})

    @property
    def title(self) -> str:
        """What was trained, on what data."""
        model = self.config.model
        without = "" if model.skip else " without skip connections"
        return f"{TITLES.get(model.name, model.name)}{without} on {self.summary['data']}"

    @property
    def by_result(self) -> list[str]:
        """The norms by mean test accuracy, the best first: the order of every legend."""
        means = {name: mean_std(self.accuracies(name))[0] for name in self.names}
        return sorted(self.names, key=lambda name: -np.nan_to_num(means[name], nan=-1.0))

    def accuracies(self, norm: str) -> list[float]:
        """Return the final test accuracy of each seed, in [0, 1]."""
        return [float(r["accuracy"]) for r in self.summary["results"] if r["norm"] == norm]

    def label(self, norm: str) -> str:
        """Return what people read for ``norm``, its options included."""
        return self.labels.get(norm) or label(norm)

    def labelled(self, norms: Iterable[str]) -> list[str]:
        """Return what people read for each of ``norms``."""
        return [self.label(norm) for norm in norms]

    def ics(self, norm: str) -> dict[int, Rows]:
        """Return the rows of the probes of ``norm`` by seed; empty if it was not probed."""
        return {run.seed: run.ics for run in self.runs if run.norm == norm and run.ics}

    def probed(self) -> list[str]:
        """Return the norms that were probed, in order."""
        return [norm for norm in self.names if self.ics(norm)]


def read_results(folder: Path) -> Results:
    """Read a finished run folder, or the one file that ``write_run_file`` made of it.

    Raises:
        ValueError: If a file is missing or damaged.
    """
    if folder.suffix == ".json":
        return _read_run_file(folder)
    config = read_config(folder)
    versions = files.read_json(folder / "versions.json")
    summary = files.read_numbers(folder / "summary.json")
    _check(folder / "versions.json", isinstance(versions, dict) and bool(versions))
    _check(folder / "summary.json", _is_summary(summary))
    runs = [_read_run(folder / r["folder"], r["norm"], r["seed"]) for r in summary["results"]]
    path = folder / "data.json"  # Earlier versions had none.
    data = files.read_json(path) if path.exists() else {}
    _check(path, isinstance(data, dict))
    return Results(folder, config, versions, summary, runs, config.norms, data, labels_of(config))


def read_config(folder: Path) -> TrainConfig:
    """Return the configuration of a run folder.

    Raises:
        ValueError: If it is missing, damaged or of a version with other options.
    """
    values = files.read_json(folder / "config.json")
    try:
        return from_dict(values)
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error


def _check(path: Path, fits: bool) -> None:
    if not fits:
        raise ValueError(
            f"{path} is not what a run writes; restore it from a copy, or repeat the run."
        )


def _is_summary(summary: Any) -> bool:
    """Return whether it has all that is read of it, numbers where numbers must be."""
    if not isinstance(summary, dict) or not isinstance(summary.get("results"), list):
        return False
    whole = ("seed", "step", "correct", "count")
    numbers = ("accuracy", "cross_entropy", "ms_per_step", "train_seconds", "probe_seconds")
    return bool(summary["results"]) and all(
        isinstance(row, dict)
        and all(isinstance(row.get(name), str) for name in ("norm", "folder"))
        and all(type(row.get(name)) is int for name in whole)
        and all(isinstance(row.get(name), int | float) for name in numbers)
        and isinstance(row.get("alpha"), dict)
        for row in summary["results"]
    )


def group(runs: Sequence[RunRows]) -> dict[str, list[RunRows]]:
    """Return the runs of each norm, in the order in which norms come."""
    groups: dict[str, list[RunRows]] = {}
    for run in runs:
        groups.setdefault(run.norm, []).append(run)
    return groups


def _read_run(folder: Path, norm: str, seed: int) -> RunRows:
    rows = {kind: files.read_rows(folder / f"{kind}.jsonl") for kind in KINDS}
    for kind in ("train", "eval"):
        if not rows[kind]:
            raise ValueError(
                f"{folder / kind}.jsonl is missing or empty; restore it from a copy, or repeat the "
                "run."
            )
    return RunRows(norm, seed, **rows)


def _read_run_file(path: Path) -> Results:
    record = files.read_numbers(path)
    if not isinstance(record, dict) or record.get("run_file") != RUN_FILE:
        raise ValueError(f"{path} is no file of a run; give one, or the folder of a finished run.")
    try:
        config = from_dict(record["config"])
        runs = [
            RunRows(run["norm"], run["seed"], *(_rows_of(run[kind]) for kind in KINDS))
            for run in record["runs"]
        ]
        rest = (record["versions"], record["summary"], runs, config.norms, record["data"])
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); restore it from a copy.") from error
    return Results(path, config, *rest, labels=labels_of(config))


def _rows_of(table: Mapping[str, Any]) -> Rows:
    """Return rows from columns: those of one value, and the others."""
    return [
        {**table["alike"], **{name: values[i] for name, values in table["columns"].items()}}
        for i in range(table["rows"])
    ]
