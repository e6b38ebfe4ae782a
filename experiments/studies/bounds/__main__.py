"""Flags of the study, its output folder and its table: ``python -m experiments bounds``."""

import dataclasses
import sys
import time
from pathlib import Path

from rich.console import Console

from experiments.common import files
from experiments.common.checks import check_seeds
from experiments.common.cli import command
from experiments.common.output_folder import check_new, options_of, whole_folder
from experiments.studies.bounds import figure, study
from experiments.studies.bounds.table import bounds_table
from experiments.studies.record import write_record


@dataclasses.dataclass(frozen=True)
class BoundsConfig:
    """How far apart can a layer's outputs be before and after an update?

    Batch normalization fixes the mean and the variance of each output; the Earth Mover distance
    between two such outputs is at most sqrt(2 d), and reaches it. Unitized outputs at alpha = 1
    are at most 2 apart, whatever the dimension d and however noisy the statistics. This study
    measures both exactly (with a proof of each number, see unitnorm_jax.ics.em_distance) and
    draws them beside the closed-form bounds.

    Writes bounds.csv (one row per measurement) and bounds.png into a new folder. Takes under a
    minute on two CPU cores. Example: python -m experiments bounds --out runs/bounds-1
    """

    out: Path = Path("runs/bounds")
    """Folder to create. An existing one is never written to: give another name."""
    dimensions: tuple[int, ...] = (4, 16, 64, 256, 1024)
    """Dimensions d of the pair with equal means and variances; even numbers."""
    noises: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 4.0)
    """Noise of the statistics: means off by this many standard deviations, log variances by this
    much, times a normal number. Mini-batches of B samples have about 1/sqrt(B)."""
    alpha_noise: float = 1.0
    """Noise at which alpha is varied from 0 (batch normalization) to 1 (unitized)."""
    dimension: int = 64
    """Dimension where the noise or alpha is varied."""
    samples: int = 128
    """Samples of each output there."""
    repeats: int = 5
    """Draws of samples and noise; the figure shows medians, the CSV all."""
    seed: int = 0
    """Seed of the draws."""
    record: Path | None = None
    """Folder for bounds.json, what the pages show: experiments/results."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_seeds(seed=(self.seed,))
        odd = [d for d in self.dimensions if d < 2 or d % 2]
        if odd or not self.dimensions:
            raise ValueError(f"--dimensions {odd} must be even and at least 2, such as 4 16 64.")
        if not self.noises or min((*self.noises, self.alpha_noise)) <= 0:
            raise ValueError("--noises and --alpha-noise must be positive, such as 0.01 0.1 1.")
        if min(self.dimension, self.samples, self.repeats) < 1:
            raise ValueError("--dimension, --samples and --repeats must be at least 1.")


def run(config: BoundsConfig, console: Console) -> None:
    """Measure, write, print.

    Raises:
        ValueError: If the folder exists.
    """
    check_new("out", config.out)
    start = time.perf_counter()
    alphas = tuple(figure.COLOURS)
    size = (config.dimension, config.samples, config.repeats, config.seed)
    with console.status("measuring"):
        rows = list(study.dimension_rows(config.dimensions, alphas))
        rows += study.noise_rows(config.noises, alphas, *size)
        rows += study.alpha_rows([i / 10 for i in range(11)], config.alpha_noise, *size)
    with whole_folder("out", config.out) as folder:
        files.write_csv(folder / "bounds.csv", study.Row._fields, rows)
        figure.bounds_figure(rows).savefig(folder / "bounds.png", dpi=160)
    console.print(bounds_table(rows))
    certified = sum(row.exact for row in rows)
    seconds = time.perf_counter() - start
    console.print(f"{certified} of {len(rows)} distances proven exact; {seconds:.0f} s.")
    options = options_of(config, "out", "record")
    write_record(config.record, "bounds", options, study.Row._fields, rows)
    console.print(f"Wrote {config.out / 'bounds.png'} and {config.out / 'bounds.csv'}.")


main = command("bounds", BoundsConfig, run)


if __name__ == "__main__":
    sys.exit(main())
