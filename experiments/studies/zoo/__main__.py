"""The zoo from end to end: folder, measurements, table and figure."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from experiments.analysis.compare.record import to_json
from experiments.common import files, provenance
from experiments.common.cli import command_line, run_cli
from experiments.common.console import CommandConsole
from experiments.common.files import write_text
from experiments.common.output_folder import open_study
from experiments.data import load_dataset
from experiments.studies.zoo import figure, measure, summary
from experiments.studies.zoo.config import ZooConfig
from experiments.studies.zoo.record import zoo_record

PROG = "python -m experiments zoo"


def run(config: ZooConfig, console: Console, command: str = "") -> Path:
    """Measure what is missing, and write and print all that is there.

    Args:
        config: The options.
        console: Where progress and table go.
        command: The command that measures, for the record.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds something else, or an option is not possible.
    """
    open_study("out", config.out, config.options())
    (config.out / "results").mkdir(exist_ok=True)
    jobs = [(part, method) for part in config.parts for method in config.methods]
    missing = [job for job in jobs if not _path(config, *job).exists()]
    if len(missing) < len(jobs):
        console.print(f"{len(jobs) - len(missing)} of {len(jobs)} are in {config.out} already.")
    off = not console.is_terminal
    for part, method in track(missing, "Measuring", console=console, transient=True, disable=off):
        if _path(config, part, method).exists():  # Another process is at work here too.
            continue
        start = time.perf_counter()
        found = _measure(config, part, method)
        seconds = time.perf_counter() - start
        ran = {"seconds": seconds, "command": command, "versions": provenance.versions()}
        files.write_json(_path(config, part, method), found | ran)
        console.print(f"{part} {method}: {seconds:.0f} s", highlight=False)
    return report(config, console)


def report(config: ZooConfig, console: Console) -> Path:
    """Write and print table and figure of all that has been measured."""
    entries = summary.read_entries(config)
    files.write_json(config.out / "zoo.json", {"options": config.options(), "methods": entries})
    write_text(config.out / "zoo.md", summary.markdown(entries, config))
    with files.replacing(config.out / "zoo.png") as path:
        figure.methods_figure(entries, config).savefig(path, dpi=140)
    if config.record is not None and entries:
        write_text(config.record / "zoo.json", to_json(zoo_record(entries, config)))
    for table in summary.tables(entries, config):
        console.print(table)
    console.print(summary.caption(entries, config), highlight=False)
    console.print(f"Wrote zoo.json, zoo.md and zoo.png to {config.out}.", soft_wrap=True)
    return config.out


def _path(config: ZooConfig, part: str, method: str) -> Path:
    return summary.result_path(config.out, method, part)


def _measure(config: ZooConfig, part: str, method: str) -> dict[str, Any]:
    if part == "train":
        logs = config.out / "logs"
        logs.mkdir(exist_ok=True)
        with (logs / f"{method}.txt").open("a", encoding="utf-8") as log:
            return measure.train_method(config, method, Console(file=log, width=120))
    dataset = load_dataset(config.dataset)
    if part == "time":
        return measure.time_method(config, method, dataset)
    return measure.smallest_batch(config, method, dataset)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    # What was measured does not depend on where it was written.
    command = command_line(PROG, arguments, "--out", "--record")
    return run_cli(
        PROG, ZooConfig, arguments, lambda config: run(config, CommandConsole(), command)
    )


if __name__ == "__main__":
    sys.exit(main())
