"""A finished run in one small JSON file, which ``read_results`` reads as it reads the folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.analysis.compare.record import to_json
from experiments.analysis.results import KINDS, RUN_FILE, read_results
from experiments.common import files
from experiments.config.experiment import TrainConfig, to_dict

DIGITS = 6


def write_run_file(folder: Path, path: Path) -> None:
    """Write all rows of a finished run to one file, with configuration, versions and data.

    Args:
        folder: Of the run.
        path: Of the file; it is replaced whole. Numbers have six digits; folders of this machine
            are left out.

    Raises:
        ValueError: If the run is not finished, or its folder is damaged.
    """
    results = read_results(folder)
    record = {
        "run_file": RUN_FILE,
        "config": to_dict(_without_places(results.config)),
        "versions": results.versions,
        "data": results.data,
        "summary": results.summary,
        "runs": [
            {
                "norm": run.norm,
                "seed": run.seed,
                **{kind: _columns(getattr(run, kind)) for kind in KINDS},
            }
            for run in results.runs
        ],
    }
    files.write_text(path, to_json(files.to_plain(record)))


def _without_places(config: TrainConfig) -> TrainConfig:
    """Return the configuration without the folders of this machine."""
    place = config.data.data_dir
    data = dataclasses.replace(
        config.data, data_dir=None if place is None else Path(place).name, cache_dir=None
    )
    return dataclasses.replace(config, data=data, run_dir=None, resume="never")


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return rows by column; one that has one value is that value."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [_rounded(row.get(name)) for row in rows] for name in names}
    alike = {name: values[0] for name, values in columns.items() if len({*map(str, values)}) == 1}
    rest = {name: values for name, values in columns.items() if name not in alike}
    return {"rows": len(rows), "alike": alike, "columns": rest}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
