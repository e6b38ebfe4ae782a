"""A training step with amplitude-phase recombination against one without."""

import dataclasses
from typing import Any

import numpy as np

from experiments.benchmarks.step import BASE, batch_of, recipe_of, stepper
from experiments.common import timing
from experiments.training.program import build_program

KINDS: dict[str, tuple[str, ...]] = {
    "apr-p": ("apr-p",),
    "apr-s": ("apr-s",),
    "both": ("apr-p", "apr-s"),
}


@dataclasses.dataclass(frozen=True)
class AugmentRow:
    """One network.

    Attributes:
        network: What is trained.
        batch_size: Images per update.
        base_ms: Median time of an update without recombination.
        rounds: How often each was timed.
        ratios: Of the time of an update with it to that in the same round: median and quartiles.
    """

    network: str
    batch_size: int
    base_ms: float
    rounds: int
    ratios: dict[str, tuple[float, float, float]]


def measure(network: str, batch_size: int, seconds: float) -> AugmentRow:
    """Time updates that differ in their augmentation, in turns.

    Args:
        network: As for ``bench step``.
        batch_size: Images per update.
        seconds: How long to measure.
    """
    recipe = recipe_of(network, batch_size)
    batch = batch_of(recipe.dataset, batch_size)
    kinds: dict[str, Any] = {"none": (), **KINDS}
    steppers = {
        name: stepper(
            build_program(
                recipe.config, BASE, dataclasses.replace(recipe.dataset, recombination=kind)
            ),
            batch,
        )
        for name, kind in kinds.items()
    }
    times = timing.interleaved(steppers, seconds)
    return AugmentRow(
        network=network,
        batch_size=batch_size,
        base_ms=1e3 * float(np.median(times["none"])),
        rounds=len(times["none"]),
        ratios={name: timing.ratio(times, name, "none") for name in KINDS},
    )
