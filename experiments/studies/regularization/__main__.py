"""The study from end to end: folder, levels of noise, table and figure."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from experiments.common import files
from experiments.common.cli import command
from experiments.common.output_folder import open_study, options_of
from experiments.data import load_arrays
from experiments.studies.record import write_record
from experiments.studies.regularization import figure, study, summary
from experiments.studies.regularization.config import RegularizationConfig


def run(config: RegularizationConfig, console: Console) -> Path:
    """Measure what is missing, and write and print what was found.

    Args:
        config: The options.
        console: Where progress and table go.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder holds something else, or a loss is not finite.
    """
    start = time.perf_counter()
    dataset = load_arrays(config.dataset)
    settings = study.Settings(
        hidden=config.hidden,
        classes=dataset.num_classes,
        scale=config.scale,
        output_penalty=config.output_penalty,
        updates=config.updates,
        learning_rate=config.learning_rate,
    )
    open_study("out", config.out, options_of(config, "out", "record"))
    missing = [noise for noise in config.noises if not _path(config, noise).exists()]
    if len(missing) < len(config.noises):
        done = len(config.noises) - len(missing)
        console.print(f"{done} of {len(config.noises)} levels of noise are in {config.out}.")
    bar = track(missing, "Noise", console=console, transient=True, disable=not console.is_terminal)
    for noise in bar:
        rows = study.measure_noise(
            dataset, noise, config.seeds, config.penalties, settings, config.images
        )
        _check_finite(rows)
        files.write_json(_path(config, noise), rows)
        seconds = time.perf_counter() - start
        console.print(f"noise {noise:g}: {len(rows)} networks; {seconds:.0f} s in all")
    rows = summary.brief(
        [row for noise in config.noises for row in files.read_json(_path(config, noise))]
    )
    found = summary.summarize(rows)
    title = f"One hidden layer of {config.hidden} units on {dataset.name}"
    if config.images is not None:
        title += f", {config.images:,} training images at most"
    if not (config.out / "summary.json").exists():
        with files.replacing(config.out / "regularization.png") as path:
            figure.regularization_figure(rows, title).savefig(path, dpi=140, format="png")
        # Last: it says that the study is complete.
        files.write_json(config.out / "summary.json", found)
    fields = list(rows[0])
    write_record(
        *(config.record, "regularization", options_of(config, "out", "record"), fields),
        [[row[name] for name in fields] for row in rows],
        title=title,
    )
    for table in summary.tables(rows, title).values():
        console.print(table)
    worst = np.max([entry["constraint"] for entry in found])
    residual = np.median([value for entry in found for value in entry["residual"]])
    console.print(
        f"sd(v'x) differs from gamma = {config.scale:g} by at most {worst:.0e} (relative). "
        f"|grad L + 2 lambda S v| / |grad L|, 0 where training has converged: {residual:.2f} "
        "(median)."
    )
    console.print(f"Wrote {config.out / 'regularization.png'} and summary.json.", soft_wrap=True)
    return config.out


def _path(config: RegularizationConfig, noise: float) -> Path:
    return config.out / f"noise-{noise:g}.json"


def _check_finite(rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        if not np.isfinite([row["train_cross_entropy"], row["test_cross_entropy"]]).all():
            raise ValueError(
                f"the loss of the network {row['network']!r} (noise {row['noise']}, weight decay "
                f"{row['penalty']}, seed {row['seed']}) is not finite. Nothing of this level of "
                "noise was written; try a smaller --learning-rate."
            )


main = command("regularization", RegularizationConfig, run)


if __name__ == "__main__":
    sys.exit(main())
