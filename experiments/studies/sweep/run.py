"""Runs a sweep: every method of every setting once, whatever was interrupted before."""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.analysis.compare import combine, make_record
from experiments.analysis.compare.command import train_command
from experiments.analysis.compare.record import FORMAT, number, to_plain
from experiments.analysis.run_file import write_run_file
from experiments.common.errors import NonFiniteLossError, Preempted
from experiments.common.files import write_json
from experiments.common.output_folder import open_study
from experiments.common.provenance import versions
from experiments.common.statistics import largest
from experiments.config.experiment import TrainConfig
from experiments.studies.sweep.sweeps import Sweep, change
from experiments.training.job import train

# What a sweep's record leaves out of that of a comparison, to stay small.
LEFT_OUT = ("distances", "tightness", "looseness")


def run_sweep(
    name: str,
    sweep: Sweep,
    out: Path,
    console: Console,
    until: float = math.inf,
    data_dir: str | None = None,
    records: Path | None = None,
) -> dict[str, Any] | None:
    """Train what is not trained yet, and compare.

    Every method has a run folder of its own, named by its configuration: sweeps share the runs that
    they have in common, and a sweep that was interrupted goes on with the next one.

    Args:
        name: Of the sweep.
        sweep: The runs.
        out: Folder of all sweeps.
        console: Where progress and tables go.
        until: Time, in seconds as ``time.monotonic`` counts them, at which a run is stopped.
        data_dir: Where the data are, if they do not come with a library.
        records: Folder for a file of each run of a sweep whose seeds are apart, written as it ends;
            a run whose file is there is not made again, be it from another machine.

    Returns:
        None if it was stopped by the time. Else the record: ``sweep``, ``command``, ``question``,
        and per setting a comparison's record, with ``failed``: what did not train to the end, and
        why.
    """
    open_study("out", out, {"sweeps": FORMAT})
    todo = {folder_of(config, out): config for s in sweep.settings for config in sweep.runs(s)}
    records = records / name if sweep.apart and records is not None else None
    for i, (folder, config) in enumerate(todo.items()):
        place = place_of(config, out, records)
        if time.monotonic() > until and not is_done(place):
            console.print(f"Out of time before run {i + 1} of {len(todo)}; repeat to go on.")
            return None
        console.print(f"{i + 1} of {len(todo)}: {train_command(config)}", soft_wrap=True)
        if place.is_file():
            console.print(f"Recorded before: {place}", soft_wrap=True)
            continue
        if data_dir is not None and config.data.data_dir is not None:
            config = change(config, data={"data_dir": data_dir})
        try:
            train_once(config, folder, console, until)
        except Preempted:
            if time.monotonic() < until:
                raise
            console.print(f"Out of time in run {i + 1} of {len(todo)}; repeat to go on.")
            return None
        if records is not None and is_trained(folder):
            record = record_of(folder, config, records)
            write_run_file(folder, record)
            console.print(f"Record: {record}", soft_wrap=True)
    return {
        "format": FORMAT,
        "sweep": name,
        "command": f"python -m experiments sweep {name}",
        "question": sweep.question,
        "settings": [compare_setting(s.name, sweep.runs(s), out, records) for s in sweep.settings],
    }


def folder_of(config: TrainConfig, out: Path) -> Path:
    """Return the run folder of a configuration."""
    key = hashlib.sha256(train_command(config).encode()).hexdigest()[:8]
    return out / f"{config.data.dataset}-{'-'.join(config.norms)}-{key}"


def record_of(folder: Path, config: TrainConfig, records: Path) -> Path:
    """Return the file among ``records`` of the run in a folder."""
    return records / f"{folder.name}-seed{config.seeds[0]}.json"


def place_of(config: TrainConfig, out: Path, records: Path | None) -> Path:
    """Return the file of a run among ``records`` if it is there, else its folder."""
    folder = folder_of(config, out)
    if records is not None and (file := record_of(folder, config, records)).exists():
        return file
    return folder


def is_trained(place: Path) -> bool:
    """Return whether a run was trained to its end: it has a file, or a summary in its folder."""
    return place.is_file() or (place / "summary.json").exists()


def is_done(place: Path) -> bool:
    """Return whether a run was trained to its end, or failed."""
    return is_trained(place) or (place / "failed.json").exists()


def train_once(
    config: TrainConfig, folder: Path, console: Console, until: float = math.inf
) -> None:
    """Train ``config`` unless it is done; go on where it was interrupted.

    Raises:
        Preempted: If it was asked to stop, or it is ``until``; what was trained is saved.
    """
    if is_done(folder):
        console.print(f"Done before, in {folder}", soft_wrap=True)
        return
    # The time may have run out since the caller looked.
    left = None if math.isinf(until) else max(until - time.monotonic(), 1e-3)
    config = dataclasses.replace(config, run_dir=str(folder), resume="auto", max_seconds=left)
    try:
        train(config, Console(quiet=True))
    except NonFiniteLossError as error:
        # That a method diverges is an answer, too.
        write_json(folder / "failed.json", {"reason": str(error), "versions": versions()})
        console.print(f"Failed: {error}", soft_wrap=True)


def compare_setting(
    name: str, configs: Sequence[TrainConfig], out: Path, records: Path | None = None
) -> dict[str, Any]:
    """Return the record of the runs of a setting that were trained to the end.

    Those that have a file in ``records`` may have been made on several machines.
    """
    places = [place_of(config, out, records) for config in configs]
    done = [place for place in places if is_trained(place)]
    failed = [
        {
            "command": train_command(config),
            "reason": json.loads((place / "failed.json").read_text())["reason"],
        }
        for config, place in zip(configs, places, strict=True)
        if place not in done
    ]
    # Differences are against the first method; without it there are none.
    record: dict[str, Any] = {
        "setting": name,
        "failed": failed,
        "base_failed": places[0] not in done,
    }
    if done:
        record |= make_record(combine(done, allow=() if records is None else ("versions",)), "")
        record["arms"] = [small(arm) for arm in record["arms"]]
        if record["base_failed"]:
            record["arms"] = [without_base(arm) for arm in record["arms"]]
    return record


def without_base(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is left of a method where the one that it is compared with has failed."""
    runs = [{**run, "time_ratio": None} for run in arm["runs"]]
    return {**arm, "runs": runs, "shift": []}


def small(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sweep keeps of a method."""
    kept = {name: value for name, value in arm.items() if name not in LEFT_OUT}
    parts = ("quantity", "layer", "ratio", "seed_ratios", "certified_less", "certified_more")
    shift = [{name: layer[name] for name in parts} for layer in arm["shift"]]
    certificates = arm["certificates"]
    total = {
        "layer": "all",
        **{name: sum(c[name] for c in certificates) for name in ("measured", "open", "not_finite")},
        "largest_gap": to_plain(largest(number(c["largest_gap"]) for c in certificates)),
    }
    return {**kept, "shift": shift, "certificates": [total] if certificates else []}
