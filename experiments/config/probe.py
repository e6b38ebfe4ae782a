"""Options of the probe of internal covariate shift."""

import dataclasses
from typing import Literal, get_args

from experiments.common.checks import check_choice, not_negative, positive

Mode = Literal["train", "eval"]
Places = Literal["norms", "all"]
Measure = Literal["em", "moments", "channels", "mmd", "kmm", "gaussian", "estimation", "gradient"]
MEASURES: tuple[str, ...] = get_args(Measure)


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """Internal covariate shift: how far an update moves the outputs of the normalization layers.

    Measured by Earth Mover distance, for every norm at the same updates on the same images.
    """

    every: int = 10
    """Updates between measurements; 0 measures nothing."""
    images: int = 16
    """Training images, drawn once for all norms and seeds, whose layer outputs are compared."""
    mode: Mode = "train"
    """Statistics that layers use on the probe images: train, those of the probe images (as in
    training); eval, the running ones."""
    lag: int = 1
    """Updates between the two states compared, from 1 to EVERY."""
    places: Places = "norms"
    """Where: norms, the outputs of the normalization layers; all, also of networks that have none,
    in the places where others have theirs (what goes into the activations)."""
    measures: tuple[Measure, ...] = ("em",)
    """What to measure besides the Earth Mover distance (em, always there): moments (drift of mean
    and standard deviation by channel), channels (W1 by channel), mmd, kmm (effective sample size
    of kernel mean matching), gaussian (W2 of normal distributions), estimation (running statistics
    against those of the inputs), gradient (how far the gradient of a layer moves when earlier
    layers are updated: one backward pass per layer)."""

    def __post_init__(self) -> None:
        """Check the values."""
        not_negative(every=self.every)
        positive(images=self.images)
        check_choice("mode", self.mode, get_args(Mode))
        check_choice("places", self.places, get_args(Places))
        for measure in self.measures:
            check_choice("measures", measure, MEASURES)
        if self.every and not 1 <= self.lag <= self.every:
            raise ValueError(
                f"`lag` (={self.lag}) must be from 1 to `every` (={self.every}): 1 measures the "
                "shift of one update, `every` that since the last measurement."
            )
