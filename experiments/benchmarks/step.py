"""A whole training step with each normalization against that with BatchNorm."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.networks import (
    RECIPES,
    Recipe,
    make_recipe,
    with_changes,
)
from experiments.common import timing
from experiments.config.experiment import TrainConfig
from experiments.data import ArrayDataset, Batch, Dataset, load_dataset
from experiments.training.program import Program, build_program

BASE = "bn"


@dataclasses.dataclass(frozen=True)
class StepRow:
    """One network.

    Attributes:
        network: What is trained.
        precision: Dtype of the activations.
        batch_size: Images per update.
        base_ms: Median time of an update with ``bn``.
        rounds: How often each was timed.
        ratios: Of the time of an update with a method to that with ``bn`` in the same round:
            median and quartiles.
    """

    network: str
    precision: str
    batch_size: int
    base_ms: float
    rounds: int
    ratios: dict[str, tuple[float, float, float]]


def measure(
    network: str, norms: Sequence[str], precision: str, batch_size: int, seconds: float
) -> StepRow:
    """Time updates of networks that differ in their normalization, in turns.

    Args:
        network: ``digits``, that of ``train``, or a recipe of ``benchmarks.networks``.
        norms: Methods besides ``bn``.
        precision: Dtype of the activations.
        batch_size: Images per update.
        seconds: How long to measure.

    Raises:
        ValueError: If there is no such network.
    """
    recipe = recipe_of(network, batch_size)
    config = with_changes(recipe, precision=precision).config
    batch = batch_of(recipe.dataset, batch_size)
    steppers = {
        norm: stepper(build_program(config, norm, recipe.dataset), batch) for norm in (BASE, *norms)
    }
    times = timing.interleaved(steppers, seconds)
    return StepRow(
        network=network,
        precision=precision,
        batch_size=batch_size,
        base_ms=1e3 * float(np.median(times[BASE])),
        rounds=len(times[BASE]),
        ratios={norm: timing.ratio(times, norm, BASE) for norm in norms},
    )


def recipe_of(network: str, batch_size: int) -> Recipe:
    """Return what a network is trained with: digits, or a recipe of ``benchmarks.networks``."""
    if network in RECIPES:
        return make_recipe(network, batch_size)
    if network != "digits":
        raise ValueError(
            f"network (={network!r}) is unknown; choose from digits, {', '.join(RECIPES)}."
        )
    config = TrainConfig()
    optim = dataclasses.replace(config.optim, batch_size=batch_size)
    return Recipe(dataclasses.replace(config, optim=optim), load_dataset(config.data))


def batch_of(dataset: Dataset, size: int) -> Batch:
    """Return a batch to time with."""
    batch = dataset.example(size)  # Of constant images, which have no variance.
    if isinstance(dataset, ArrayDataset):
        chosen = np.arange(size) % dataset.train_size
        of = {"image": dataset.train_images[chosen], "label": dataset.train_labels[chosen]}
        return {**batch, **of}
    noise = np.random.default_rng(0).integers(0, 256, batch["image"].shape, np.uint8)
    return {**batch, "image": noise}


def stepper(program: Program, batch: Batch) -> Callable[[], Any]:
    """Return a function that makes one update, of a state of its own, on ``batch``."""
    batch = jax.device_put({name: batch[name] for name in ("image", "label")})
    state = program.init(jax.random.key(0), batch["image"])

    def step() -> Any:
        nonlocal state
        state, metrics = program.train_step(state, batch)
        return metrics

    return step
