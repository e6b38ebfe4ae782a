"""What a run folder holds, read back: all that figures and report are made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common import files
from experiments.config.experiment import TrainConfig, from_dict
from experiments.models import TITLES

Rows = list[dict[str, Any]]


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
    """

    folder: Path
    config: TrainConfig
    versions: dict[str, Any]
    summary: dict[str, Any]
    runs: list[RunRows]
    names: tuple[str, ...]

    @property
    def title(self) -> str:
        """What was trained, on what data."""
        model = self.config.model
        without = "" if model.skip else " without skip connections"
        return f"{TITLES.get(model.name, model.name)}{without} on {self.summary['data']}"

    def ics(self, norm: str) -> dict[int, Rows]:
        """Return the rows of the probes of ``norm`` by seed; empty if it was not probed."""
        return {run.seed: run.ics for run in self.runs if run.norm == norm and run.ics}

    def probed(self) -> list[str]:
        """Return the norms that were probed, in order."""
        return [norm for norm in self.names if self.ics(norm)]


def read_results(folder: Path) -> Results:
    """Read a finished run folder.

    Raises:
        ValueError: If a file is missing or damaged.
    """
    config = read_config(folder)
    versions = files.read_json(folder / "versions.json")
    summary = files.read_numbers(folder / "summary.json")
    _check(folder / "versions.json", isinstance(versions, dict) and bool(versions))
    _check(folder / "summary.json", _is_summary(summary))
    runs = [_read_run(folder / r["folder"], r["norm"], r["seed"]) for r in summary["results"]]
    return Results(folder, config, versions, summary, runs, config.norms)


def read_config(folder: Path) -> TrainConfig:
    """Return the configuration of a run folder.

    Raises:
        ValueError: If it is missing, damaged or of a version with other options.
    """
    values = files.read_json(folder / "config.json")
    try:
        return from_dict(values)
    except (TypeError, AttributeError):
        _check(folder / "config.json", False)
        raise


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
    rows = {kind: files.read_rows(folder / f"{kind}.jsonl") for kind in ("train", "eval", "ics")}
    for kind in ("train", "eval"):
        if not rows[kind]:
            raise ValueError(
                f"{folder / kind}.jsonl is missing or empty; restore it from a copy, or repeat the "
                "run."
            )
    return RunRows(norm, seed, **rows)
