"""The study from end to end: runs, record, tables and figure."""

import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from experiments.analysis.compare.record import to_json
from experiments.common import files, provenance
from experiments.common.cli import command
from experiments.common.output_folder import open_study, options_of
from experiments.studies.measures import figure, runs, summary
from experiments.studies.measures.config import Case, MeasuresConfig


def run(config: MeasuresConfig, console: Console) -> Path:
    """Train and measure what is missing, and write and print what was found.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds something else, or nothing could be measured.
    """
    options = options_of(config, "out", "minutes", "record", "resamples")
    open_study("out", config.out, options)
    end = time.monotonic() + 60 * config.minutes
    cases = config.cases()
    made: dict[tuple[str, str, int], runs.Jitted] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("Runs", total=len(cases))
        for case in cases:
            progress.update(task, description=case.name)
            path = config.out / f"{case.name}.json"
            if not path.exists():
                if time.monotonic() > end:
                    console.print("Out of time; the same command goes on.")
                    break
                start = time.perf_counter()
                found = _run(case, config, made)
                found["seconds"] = round(time.perf_counter() - start, 2)
                files.write_json(path, found)
                if not console.is_terminal:
                    told = f"accuracy {found['accuracy']:.3f}, {found['seconds']:.0f} s"
                    console.print(f"{case.name}: {told}", highlight=False)
            progress.update(task, advance=1)
    done = [files.read_numbers(p) for c in cases if (p := config.out / f"{c.name}.json").exists()]
    if not done:
        raise ValueError(f"no run is in {config.out}; give more --minutes.")
    if sum(map(summary.learned, done)) < 3:
        raise ValueError(
            f"fewer than 3 of the {len(done)} runs in {config.out} learned something: give more "
            "--images, other --learning-rates, or more --minutes."
        )
    with console.status("Correlations"):
        record: dict[str, Any] = {
            "command": "python -m experiments measures",
            "options": options,
            "versions": provenance.versions(),
            "asked": len(cases),
            **summary.summarize(done, config.resamples),
        }
    for folder in (config.out, config.record):
        if folder is not None:
            files.write_text(folder / "measures.json", to_json(record))
    with files.replacing(config.out / "measures.png") as path:
        figure.correlations_figure(record).savefig(path, dpi=130)
    for table in summary.tables(record).values():
        console.print(table)
    console.print(f"Wrote measures.json and measures.png to {config.out}.", soft_wrap=True)
    return config.out


def _run(
    case: Case, config: MeasuresConfig, made: dict[tuple[str, str, int], runs.Jitted]
) -> dict[str, Any]:
    cell = case.cell
    dataset = runs.load(config, cell.dataset)
    key = (cell.dataset, cell.method, cell.batch_size)
    if key not in made:
        shared = next((jitted for other, jitted in made.items() if other[:2] == key[:2]), None)
        made[key] = runs.make(config, cell, dataset, shared)
    return runs.run(case, config, dataset, made[key])


main = command("measures", MeasuresConfig, run)


if __name__ == "__main__":
    sys.exit(main())
