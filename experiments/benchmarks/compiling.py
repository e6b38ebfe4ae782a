"""How long the update of a network takes to trace and compile, against that with BatchNorm."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.step import BASE, batch_of, recipe_of
from experiments.training.program import build_program


@dataclasses.dataclass(frozen=True)
class CompileRow:
    """One network.

    Attributes:
        network: What is trained.
        batch_size: Images per update.
        base_s: Median seconds of tracing and compiling an update with ``bn``.
        rounds: How often each was compiled, with empty caches.
        ratios: Of those with a method to those with ``bn`` in the same round: median and extremes.
    """

    network: str
    batch_size: int
    base_s: float
    rounds: int
    ratios: dict[str, tuple[float, float, float]]


def measure(network: str, norms: Sequence[str], batch_size: int, rounds: int) -> CompileRow:
    """Compile updates of networks that differ in their normalization, in turns.

    Args:
        network: As for ``bench step``.
        norms: Methods besides ``bn``.
        batch_size: Images per update.
        rounds: How often.
    """
    recipe = recipe_of(network, batch_size)
    batch = batch_of(recipe.dataset, batch_size)
    shapes: Any = {name: batch[name] for name in ("image", "label")}
    times: dict[str, list[float]] = {norm: [] for norm in (BASE, *norms)}
    for _ in range(rounds):
        for norm, seconds in times.items():
            program = build_program(recipe.config, norm, recipe.dataset)
            state = jax.eval_shape(program.init, jax.random.key(0), shapes["image"])
            jax.clear_caches()
            start = time.perf_counter()
            program.train_step.compile(state, shapes)
            seconds.append(time.perf_counter() - start)
    ratios = {norm: np.divide(times[norm], times[BASE]) for norm in norms}
    return CompileRow(
        network=network,
        batch_size=batch_size,
        base_s=float(np.median(times[BASE])),
        rounds=rounds,
        ratios={
            norm: (float(np.median(of)), float(of.min()), float(of.max()))
            for norm, of in ratios.items()
        },
    )
