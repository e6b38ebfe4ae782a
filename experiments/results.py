"""What a run folder holds, read back: all that figures and report are made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments import record
from experiments.config import TrainConfig, from_dict
from experiments.models import TITLES
from unitnorm_jax import ics

Rows = list[dict[str, Any]]


class RunRows(NamedTuple):
    """The rows of one norm and seed; ``ics`` is empty where nothing was probed."""

    norm: str
    seed: int
    train: Rows
    eval: Rows
    ics: Rows


class Results(NamedTuple):
    """A finished run folder, or several put together (``experiments.compare``).

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
        """Returns the rows of the probes of ``norm`` by seed; empty if it was not probed."""
        return {run.seed: run.ics for run in self.runs if run.norm == norm and run.ics}

    def probed(self) -> list[str]:
        """Returns the norms that were probed, in order."""
        return [norm for norm in self.names if self.ics(norm)]


def read_results(folder: Path) -> Results:
    """Reads a finished run folder.

    Raises:
        ValueError: If a file is missing or damaged.
    """
    config = from_dict(record.read_json(folder / "config.json"))
    versions = record.read_json(folder / "versions.json")
    summary = record.read_numbers(folder / "summary.json")
    try:
        runs = [_read_run(folder / r["folder"], r["norm"], r["seed"]) for r in summary["results"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / 'summary.json'} is not what experiments.train writes ({error!r}); restore "
            "it from a copy, or repeat the run."
        ) from error
    return Results(folder, config, versions, summary, runs, config.norms)


def group(runs: Sequence[RunRows]) -> dict[str, list[RunRows]]:
    """Returns the runs of each norm, in the order in which norms come."""
    groups: dict[str, list[RunRows]] = {}
    for run in runs:
        groups.setdefault(run.norm, []).append(run)
    return groups


def _read_run(folder: Path, norm: str, seed: int) -> RunRows:
    rows = {kind: ics.read_rows(folder / f"{kind}.jsonl") for kind in ("train", "eval")}
    probed = folder / "ics.jsonl"
    return RunRows(norm, seed, **rows, ics=ics.read_rows(probed) if probed.exists() else [])
