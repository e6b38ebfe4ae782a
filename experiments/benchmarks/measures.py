"""What each measure of shift adds to a probe that takes the Earth Mover distance alone."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.step import BASE, batch_of, recipe_of, stepper
from experiments.common import timing
from experiments.config.experiment import ProbeConfig
from experiments.training.probing import with_probe
from experiments.training.program import build_program

ALONE, FORWARD = "em", "two forward passes"


@dataclasses.dataclass(frozen=True)
class MeasuresRow:
    """One network.

    Attributes:
        network: What is probed.
        layers: Layers that are probed.
        images: Images the probe looks at.
        step_ms: Median time of an update.
        base_ms: Median time of a measurement of the Earth Mover distance alone.
        added: What it takes besides two forward passes, in units of these in the same round: median
            and quartiles.
        rounds: How often each was timed.
        ratios: Of the time of a measurement with one measure more to that, in the same round:
            median and quartiles.
    """

    network: str
    layers: int
    images: int
    step_ms: float
    base_ms: float
    added: tuple[float, float, float]
    rounds: int
    ratios: dict[str, tuple[float, float, float]]


def measure(
    network: str, names: Sequence[str], batch_size: int, images: int, seconds: float
) -> MeasuresRow:
    """Time an update, and probes of it with one measure more each, in turns.

    Args:
        network: As for ``bench step``.
        names: Measures.
        batch_size: Images per update.
        images: Images the probe looks at.
        seconds: How long to measure.
    """
    recipe = recipe_of(network, batch_size)
    batch = jax.device_put(batch_of(recipe.dataset, max(batch_size, images)))
    shown = {name: value[:batch_size] for name, value in batch.items() if name != "weight"}
    seen = recipe.dataset.standardize(batch["image"][:images]), batch["label"][:images]
    program = build_program(recipe.config, BASE, recipe.dataset)
    state = program.init(jax.random.key(0), shown["image"])
    states = [jax.tree.map(lambda x: x.copy(), state)]
    for _ in range(3):  # The first rate of the schedule is 0.
        state, _ = program.train_step(state, shown)
    states.append(jax.tree.map(lambda x: x.copy(), state))
    sides = [{"params": s.params, "batch_stats": s.batch_stats} for s in states]

    def prober(name: str) -> Callable[[], Any]:
        config = ProbeConfig(images=images, measures=tuple(dict.fromkeys((ALONE, name))))  # type: ignore[arg-type]
        probe = with_probe(program, config, recipe.dataset, seen).probe
        assert probe is not None
        return lambda: probe(*sides)

    @jax.jit
    def forward(variables: Any, images: jax.Array) -> Any:
        return program.model.apply(variables, images, train=True, mutable=["batch_stats"])

    functions = {
        FORWARD: lambda: [forward(side, seen[0]) for side in sides],
        "step": stepper(program, shown),
        **{name: prober(name) for name in (ALONE, *names)},
    }
    times = timing.interleaved(functions, seconds)
    whole = timing.ratio(times, ALONE, FORWARD)
    return MeasuresRow(
        network=network,
        layers=len(program.layers),
        images=images,
        step_ms=1e3 * float(np.median(times["step"])),
        base_ms=1e3 * float(np.median(times[ALONE])),
        added=(whole[0] - 1, whole[1] - 1, whole[2] - 1),
        rounds=len(times[ALONE]),
        ratios={name: timing.ratio(times, name, ALONE) for name in names},
    )
