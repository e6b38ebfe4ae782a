"""Trains the same network with each normalization: ``python -m experiments.train --help``.

With its defaults, this compares BatchNorm and UnitizedBatchNorm on scikit-learn's digits with
three seeds in about a minute on two CPU cores; both reach about 99 % test accuracy. Digits show
that everything works, not that a method is better: small networks without any norm do as well.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments import config as configs
from experiments import record, report, shift_report
from experiments.build import build_program, compile_program, updates_per_epoch
from experiments.cli import run_cli
from experiments.data import Dataset, load_dataset
from experiments.loop import Run, train_seed
from experiments.page import write_report
from experiments.probing import compile_probe, with_probe
from experiments.results import read_results


def train(config: configs.TrainConfig, console: Console) -> Path:
    """Trains every norm with every seed.

    Args:
        config: What to train.
        console: Where progress and the final table go.

    Returns:
        The run folder: ``config.json``, ``versions.json``, ``data.json``, ``summary.json``,
        ``curves.png``, ``ics.png``, ``report.html``, and for each norm and seed a folder of
        ``train.jsonl``, ``eval.jsonl``, ``ics.jsonl``, ``tensorboard/`` and ``checkpoints/``.

    Raises:
        ValueError: If a value of the configuration is not possible, or the run folder exists.
        NonFiniteLossError: If a loss is not finite.
    """
    start = time.perf_counter()
    dataset = load_dataset(config.data)
    updates = updates_per_epoch(config, dataset)
    programs = [
        with_probe(build_program(config, norm, dataset), config.probe, dataset)
        for norm in config.norms
    ]
    run_dir = record.new_run_dir(config.run_dir, config.data.dataset)
    versions = record.versions()
    record.write_json(run_dir / "config.json", configs.to_dict(config))
    record.write_json(run_dir / "versions.json", versions)
    record.write_json(run_dir / "data.json", dataset.record())
    console.print(f"Writing to {run_dir}", soft_wrap=True)
    _tell_bad_images(dataset, console)
    compiled = []
    for program in programs:
        began = time.perf_counter()
        compiled.append(compile_program(program, dataset, config.optim.batch_size))
        seconds = time.perf_counter() - began
        console.print(f"Compiled the network with {program.norm} in {seconds:.1f} s")
        began = time.perf_counter()
        compile_probe(compiled[-1], dataset.example(config.optim.batch_size)["image"])
        if program.probe is not None:
            seconds = time.perf_counter() - began
            console.print(f"Compiled the probe of its shift in {seconds:.1f} s")
        elif config.probe.every:
            console.print(f"{program.norm} has no normalization layer: it is not probed")
    runs: list[Run] = []
    total = len(config.norms) * config.optim.epochs * updates
    for seed in config.seeds:
        with _progress(console, f"Seed {seed}", total) as advance:
            finished = train_seed(config, compiled, dataset, seed, run_dir, advance)
        accuracies = [f"{r.program.norm} {r.eval_rows[-1]['accuracy']:.2%}" for r in finished]
        console.print(f"Seed {seed}: test accuracy {', '.join(accuracies)}")
        runs.extend(finished)
    results = [report.summarize(run, config.target_accuracy) for run in runs]
    summary: dict[str, Any] = {
        "data": dataset.name,
        "target_accuracy": config.target_accuracy,
        "seconds": time.perf_counter() - start,
        "results": results,
    }
    title = f"Pre-activation ResNet on {dataset.name}"
    record.write_json(run_dir / "data.json", dataset.record())
    _tell_bad_images(dataset, console)
    record.write_json(run_dir / "summary.json", summary)
    found = read_results(run_dir)
    page = write_report(found, title)
    console.print(report.result_table(results, title, config.target_accuracy))
    base = config.norms[0]
    for norm in config.norms[1:]:
        ratio = report.time_ratio(runs, norm, base)
        console.print(f"Time per step, {norm} / {base}: {ratio:.2f} (median over pairs)")
    every = -(-updates // config.evals_per_epoch)
    console.print(
        f"Updates to {100 * config.target_accuracy:g} %: those done at the first evaluation that "
        f"good; there is one every {every} updates."
    )
    console.print(
        "Time per step: median over the stretches between evaluations, without compilation; the "
        "norms take turns, so each stretch of one is paired with its neighbour of the other."
    )
    shift_report.print_shift(found, console)
    hardware = f"{versions['cpus']} CPUs ({versions['cpu_model']}), {versions['devices'][0]}"
    console.print(f"{hardware}; {summary['seconds']:.0f} s in all.", soft_wrap=True)
    console.print(f"Report: {page}", soft_wrap=True)
    console.print(f"Check with: python -m experiments.evaluate {run_dir}", soft_wrap=True)
    return run_dir


def _tell_bad_images(dataset: Dataset, console: Console) -> None:
    if count := len(dataset.bad.reasons()):
        console.print(f"Left out {count} images that cannot be used: see data.json.")


@contextmanager
def _progress(console: Console, label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar where there is a terminal; elsewhere the line after each seed is enough."""
    if not console.is_terminal:
        yield lambda updates: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("updates"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda updates: progress.advance(task, updates)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return run_cli(
        "python -m experiments.train",
        configs.TrainConfig,
        arguments,
        lambda config: train(config, Console()),
    )


if __name__ == "__main__":
    sys.exit(main())
