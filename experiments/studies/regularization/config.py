"""The options of the study, checked when made."""

import dataclasses
from pathlib import Path

from experiments.common.checks import check_seeds, not_negative, positive
from experiments.config.data import check_dataset


@dataclasses.dataclass(frozen=True)
class RegularizationConfig:
    """How much weight decay is batch normalization, and does it follow the noise of the data?

    A unit behind batch normalization is a unit with the folded weights v = gamma w / sqrt(w' S w),
    S the covariance of the inputs, and v' S v = gamma^2 whatever w is. That constraint implies a
    penalty, whose coefficient the data set: lambda = -v' grad L / (2 gamma^2). This study adds
    noise to images, trains one hidden layer with batch normalization (its scale gamma fixed, or
    trained) and without weight decay on it, and the same network without normalization with a
    grid of weight decays; and compares the weight decay that BN implies with the best of the grid.

    Writes a folder: configuration, versions, one JSON file per level of noise (with the numbers of
    every unit), summary.json, regularization.png. An interrupted study goes on where it stopped
    when called again with the same options; a finished one is never written to. Example:
    python -m experiments regularization --out runs/regularization-1
    """

    out: Path = Path("runs/regularization")
    """Folder to create, or one of an unfinished study with the same options."""
    dataset: str = "digits"
    """Data set, as in train."""
    images: int | None = None
    """Training images to use at most, a fifth of them for validation; None: all."""
    noises: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    """Standard deviations of the noise on every pixel, in units of that of all pixels."""
    penalties: tuple[float, ...] = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    """Weight decays of the network without normalization: factors of its sum of squared weights
    (no factor 1/2). The best has the least validation cross-entropy, on average over seeds."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of noise, split and initial weights."""
    hidden: int = 64
    """Units of the hidden layer."""
    scale: float = 1.0
    """gamma where it is fixed; the smaller, the stronger the implied penalty."""
    output_penalty: float = 1e-3
    """Weight decay of the output layer of all networks; without it the loss has no minimum."""
    updates: int = 2000
    """Updates of Adam, each on all training images."""
    learning_rate: float = 0.01
    """Its learning rate at the start; cosine decay to zero."""
    record: Path | None = None
    """Folder for regularization.json, what the pages show: experiments/results."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_seeds(seeds=self.seeds)
        check_dataset(self.dataset)
        for name in ("noises", "penalties", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"`{name}` (={values}) must be one or more different values.")
            for value in values:
                not_negative(**{name: value})
        not_negative(output_penalty=self.output_penalty)
        for name in ("hidden", "scale", "updates", "learning_rate"):
            positive(**{name: getattr(self, name)})
        if self.images is not None and self.images < 10:
            raise ValueError(f"`images` (={self.images}) must be at least 10, or None for all.")
