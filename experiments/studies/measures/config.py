"""Options of the study, and the runs that they ask for."""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

from experiments.common.checks import check_choice, check_seeds, positive
from experiments.config.data import DataConfig
from experiments.config.experiment import ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from experiments.config.methods import NormConfig

METHODS: dict[str, tuple[str, NormConfig]] = {
    "bn": ("bn", NormConfig()),
    "ubn": ("ubn", NormConfig()),
    "ubn unit=rms alpha_init=1": ("ubn", NormConfig(unit="rms", alpha_init=1.0)),
    "none": ("none", NormConfig()),
}
DATASETS = ("digits", "mnist5k")
RATE, BATCH = 0.1, 64  # Of the recipe; one of them varies at a time.


class Cell(NamedTuple):
    """What the seeds of a method have in common."""

    dataset: str
    method: str
    learning_rate: float
    batch_size: int


class Case(NamedTuple):
    """One run."""

    cell: Cell
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        method = self.cell.method.replace(" ", "-").replace("=", "")
        rate, size = f"{self.cell.learning_rate:g}", self.cell.batch_size
        return f"{self.cell.dataset}-{method}-rate{rate}-batch{size}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class MeasuresConfig:
    """Does it matter how shift is measured, and does less shift go with higher accuracy?

    Trains BatchNorm, UnitizedBatchNorm (as published; and rms with alpha from 1) and no
    normalization on digits and mnist5k, with several learning rates and batch sizes, and takes
    every measure of shift at the same updates of every run. Writes a file per run, measures.json
    (rank correlations of all measures with the certified Earth Mover distance and with accuracy,
    intervals by bootstrap over runs) and measures.png. Interrupted, the same command goes on;
    each data set is gone through seed by seed, so that --minutes leaves whole comparisons.
    Example: python -m experiments measures --out runs/measures --minutes 35
    """

    out: Path = Path("runs/measures")
    """Folder to create, or one of an unfinished study with the same options."""
    datasets: tuple[str, ...] = DATASETS
    """Data sets: digits, mnist5k."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Methods, see the default."""
    learning_rates: tuple[float, ...] = (0.02, 0.1, 0.5)
    """Largest learning rates, with batches of 64."""
    batch_sizes: tuple[int, ...] = (16, 64, 128)
    """Batch sizes, with a learning rate of 0.1."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of weights and data order, the same for all methods."""
    images: int = 10240
    """Training images that a run sees, in all epochs: so that all make as many passes."""
    train_images: int = 1024
    """Training images to draw from, the first ones."""
    shrink: int = 2
    """Side of the squares of pixels of mnist5k of which means are taken: 2 makes 14x14 of 28x28, so
    that a run takes seconds; 1, 2, 4 or 7."""
    widths: tuple[int, ...] = (8, 16)
    """Channels of the network's stages, of one residual block each."""
    probes: int = 6
    """Updates at which shift is measured, at equal distances; the last is the last update."""
    probe_images: int = 16
    """Training images whose outputs are compared."""
    resamples: int = 300
    """Bootstrap resamples of runs for each interval."""
    minutes: float = math.inf
    """Stop training after so many minutes, and report what is there."""
    record: Path | None = None
    """Folder for a copy of measures.json: experiments/results."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_seeds(seeds=self.seeds)
        for method in self.methods:
            check_choice("methods", method, METHODS)
        for dataset in self.datasets:
            check_choice("datasets", dataset, DATASETS)
        positive(
            images=self.images,
            train_images=self.train_images,
            probes=self.probes,
            probe_images=self.probe_images,
            resamples=self.resamples,
        )
        if self.shrink < 1 or 28 % self.shrink:
            raise ValueError(f"`shrink` (={self.shrink}) must divide 28, as 1 and 2 do.")
        if not self.minutes > 0:
            raise ValueError(f"`minutes` (={self.minutes}) must be positive.")
        for cell in self.cells():
            updates = self.images // cell.batch_size
            if updates < self.probes or cell.batch_size > self.train_images:
                raise ValueError(
                    f"`images` (={self.images}) gives {updates} updates of {cell.batch_size} of "
                    f"{self.train_images} images, but {self.probes} are measured; give more "
                    "--images, or smaller --batch-sizes."
                )

    def cells(self) -> list[Cell]:
        """Return what differs between runs besides their seeds; learning rate or batch size."""
        settings = [(rate, BATCH) for rate in self.learning_rates]
        settings += [(RATE, size) for size in self.batch_sizes]
        return [
            Cell(dataset, method, *setting)
            for dataset in self.datasets
            for method in self.methods
            for setting in dict.fromkeys(settings)
        ]

    def cases(self) -> list[Case]:
        """Return all runs, in the order in which they are made: by data set, then by seed."""
        return [
            Case(cell, seed)
            for dataset in self.datasets
            for seed in self.seeds
            for cell in self.cells()
            if cell.dataset == dataset
        ]

    def training(self, cell: Cell) -> TrainConfig:
        """Return the configuration of the training of a cell."""
        norm, options = METHODS[cell.method]
        return TrainConfig(
            norms=(norm,),
            norm=options,
            data=DataConfig(dataset=cell.dataset, train_images=self.train_images),  # type: ignore[arg-type]
            model=ModelConfig(blocks=(1,) * len(self.widths), widths=self.widths),
            optim=OptimConfig(
                epochs=max(
                    1, self.images // (self.train_images // cell.batch_size * cell.batch_size)
                ),
                batch_size=cell.batch_size,
                learning_rate=cell.learning_rate,
            ),
            probe=ProbeConfig(
                every=1,
                images=self.probe_images,
                places="all",
                measures=("em", "moments", "channels", "mmd", "kmm", "gaussian", "estimation"),
            ),
        )
