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
        record = record_of(config, out, records)
        recorded = record is not None and record.exists()
        if time.monotonic() > until and not (recorded or is_done(folder)):
            console.print(f"Out of time before run {i + 1} of {len(todo)}; repeat to go on.")
            return None
        console.print(f"{i + 1} of {len(todo)}: {train_command(config)}", soft_wrap=True)
        if data_dir is not None and config.data.data_dir is not None:
            config = change(config, data={"data_dir": data_dir})
        if recorded:
            console.print(f"Recorded before: {record}", soft_wrap=True)
            continue
        try:
            train_once(config, folder, console, until)
        except Preempted:
            if time.monotonic() < until:
                raise
            console.print(f"Out of time in run {i + 1} of {len(todo)}; repeat to go on.")
            return None
        if record is not None and (folder / "summary.json").exists():
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


def record_of(config: TrainConfig, out: Path, records: Path | None) -> Path | None:
    """Return the file of a run among ``records``, if there are to be any."""
    return records and records / f"{folder_of(config, out).name}-seed{config.seeds[0]}.json"


def is_done(folder: Path) -> bool:
    """Return whether a run was trained to its end, or failed."""
    return (folder / "summary.json").exists() or (folder / "failed.json").exists()


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
    files = [record_of(config, out, records) for config in configs]
    folders = [
        file if file is not None and file.exists() else folder_of(config, out)
        for file, config in zip(files, configs, strict=True)
    ]
    done = [run for run in folders if run.is_file() or (run / "summary.json").exists()]
    failed = [
        {
            "command": train_command(config),
            "reason": json.loads((folder / "failed.json").read_text())["reason"],
        }
        for config, folder in zip(configs, folders, strict=True)
        if folder not in done
    ]
    # Differences are against the first method; without it there are none.
    record: dict[str, Any] = {
        "setting": name,
        "failed": failed,
        "base_failed": folders[0] not in done,
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
