"""The options of the zoo, checked when made."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.common.checks import check_seeds, positive
from experiments.common.output_folder import options_of
from experiments.config import experiment as configs
from experiments.config.data import DataSet

# Every row of experiments.methods, and what stands behind a "+" under one norm that it is for.
METHODS = (
    "bn",
    "ubn",
    "none",
    "ln",
    "gn",
    "in",
    "rms",
    "none+wn",
    "gn+ws",
    "normprop",
    "bcn",
    "bcn+ws",
    "bcn-micro",
    "none+enorm",
    "bn+enorm",
    "ubn+enorm",
    "ic",
    "ic-conv-relu",
    "conv-relu-ic",
    "bn-slices",
    "kalman",
    "kalman-published",
)
PARTS = ("train", "time", "batch")


@dataclasses.dataclass(frozen=True)
class ZooConfig:
    """Compare every method: accuracy, speed, shift, smallest batch.

    Three measurements of each method. train: test accuracy, updates to the target accuracy, and
    internal covariate shift of every normalization layer (without normalization: in its places),
    by the certified probe; each seed is a run of train. time: an update against one
    of --base, neighbouring updates in one process. batch: the smallest batch at which
    the network still trains, learning rate in proportion, same number of epochs.

    Writes a folder: config.json, versions.json, results/ (one file for each method and
    measurement, with commit, hardware and command), runs/ (those of train), logs/, and
    zoo.json, zoo.md, zoo.png of all that is there. A method that diverges is reported as such.

    Examples:
    python -m experiments zoo --methods bn ubn gn --seeds 0 --epochs 3 --out runs/zoo-quick

    python -m experiments zoo --parts time    (alone, on a machine that does nothing else)
    """

    out: Path = Path("runs/zoo")
    """Folder to create, or one of a study with the same options, to go on with."""
    record: Path | None = None
    """Folder for another, smaller zoo.json: experiments/results, which the table and figure of
    docs/methods/ are made of."""
    methods: tuple[str, ...] = METHODS
    """Methods to measure, see train --norms."""
    base: str = "bn"
    """The method that the others are compared with."""
    parts: tuple[str, ...] = PARTS
    """What to measure: train, time, batch. The tables show what is there."""
    dataset: DataSet = "digits"
    """Data set, see train."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of train; batch uses the first."""
    epochs: int = 8
    """Epochs of train."""
    batch_size: int = 64
    """Images per update of train and time."""
    learning_rate: float = 0.1
    """Largest learning rate of train, at that batch size."""
    target_accuracy: float = 0.97
    """Test accuracy, in (0, 1], for which the number of updates is reported."""
    probe_every: int = 10
    """Updates between measurements of the shift; 0 measures none."""
    probe_images: int = 16
    """Images of these measurements."""
    batch_sizes: tuple[int, ...] = (16, 4, 2, 1)
    """Batch sizes to try, from large to small, until one does not train."""
    batch_epochs: int = 4
    """Epochs of each."""
    trains: float = 0.9
    """Test accuracy, in (0, 1], from which on a network counts as trained."""
    seconds: float = 4.0
    """Time to spend on each comparison of update times, compilation not counted."""
    model: configs.ModelConfig = configs.TrainConfig.model
    norm: configs.NormConfig = configs.TrainConfig.norm

    def __post_init__(self) -> None:
        """Check the values."""
        check_seeds(seeds=self.seeds)
        for part in self.parts:
            if part not in PARTS:
                raise ValueError(f"part (={part!r}) is unknown; choose from {', '.join(PARTS)}.")
        sizes = self.batch_sizes
        if not sizes or list(sizes) != sorted(set(sizes), reverse=True) or sizes[-1] < 1:
            raise ValueError(
                f"`batch_sizes` (={sizes}) must be positive and become smaller, as in 16 4 2 1."
            )
        positive(batch_epochs=self.batch_epochs, seconds=self.seconds)
        if not 0 < self.trains <= 1:
            raise ValueError(f"`trains` (={self.trains}) must be in (0, 1].")
        # These check the rest.
        train_config(self, (self.base,))
        train_config(self, self.methods)
        batch_config(self, self.methods[0], 1)

    def options(self) -> dict[str, Any]:
        """Return what results depend on, for JSON: neither folder nor what is measured."""
        return options_of(self, "out", "record", "methods", "parts")


def train_config(config: ZooConfig, norms: tuple[str, ...], run_dir: str | None = None) -> Any:
    """Return the training job of some methods."""
    return configs.TrainConfig(
        norms=norms,
        seeds=config.seeds,
        run_dir=run_dir,
        target_accuracy=config.target_accuracy,
        data=configs.DataConfig(dataset=config.dataset),
        model=config.model,
        norm=config.norm,
        optim=configs.OptimConfig(
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
        ),
        probe=configs.ProbeConfig(
            every=config.probe_every, images=config.probe_images, places="all"
        ),
    )


def batch_config(config: ZooConfig, method: str, batch_size: int) -> Any:
    """Return the training job of one method with small batches.

    The learning rate is in proportion to the batch; slices are no larger than it.
    """
    job = train_config(config, (method,))
    size = config.norm.slice_size
    return dataclasses.replace(
        job,
        norm=dataclasses.replace(config.norm, slice_size=size and min(size, batch_size)),
        optim=dataclasses.replace(
            job.optim,
            epochs=config.batch_epochs,
            batch_size=batch_size,
            learning_rate=config.learning_rate * batch_size / config.batch_size,
        ),
        seeds=config.seeds[:1],
    )
