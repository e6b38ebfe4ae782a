"""Training several seeds in one program against one after another."""

import dataclasses
from typing import Any

import jax
import numpy as np

from experiments.common import timing
from experiments.config.experiment import ModelConfig, OptimConfig, TrainConfig
from experiments.data import load_dataset
from experiments.training.program import build_program
from experiments.training.seeds import spread_over_devices, stack


@dataclasses.dataclass(frozen=True)
class SeedsRow:
    """Times of an update of all seeds.

    Attributes:
        norm: The method.
        seeds: Number of seeds.
        batch_size: Images per update and seed.
        alone_ms: Median time of an update of one seed after the other.
        together_ms: Median time of an update of all in one program.
        ratio: Median of the ratios of neighbouring rounds, together / alone, and its quartiles.
    """

    norm: str
    seeds: int
    batch_size: int
    alone_ms: float
    together_ms: float
    ratio: tuple[float, float, float]


def measure(
    norm: str, batch_size: int, count: int, seconds: float, model: ModelConfig | None = None
) -> SeedsRow:
    """Time both, in turns, on the same images.

    Args:
        norm: The method.
        batch_size: Images per update and seed.
        count: Number of seeds.
        seconds: How long to measure.
        model: The network; default: that of ``train``.
    """
    optim = OptimConfig(batch_size=batch_size)
    config = TrainConfig(optim=optim, model=model or ModelConfig())
    dataset = load_dataset(config.data)
    batch = jax.device_put(dataset.example(config.optim.batch_size))
    alone = build_program(config, norm, dataset)
    batches = spread_over_devices(stack([batch] * count))
    # Every function keeps its own states, since those given are consumed.
    states: dict[str, Any] = {
        "alone": [alone.init(jax.random.key(seed), batch["image"]) for seed in range(count)],
    }
    states["together"] = spread_over_devices(stack(states["alone"]))

    def one_by_one() -> list[jax.Array]:
        states["alone"] = [alone.train_step(state, batch)[0] for state in states["alone"]]
        return [state.step for state in states["alone"]]

    def at_once() -> jax.Array:
        states["together"] = alone.train_together(states["together"], batches)[0]
        return states["together"].step

    times = timing.interleaved({"alone": one_by_one, "together": at_once}, seconds)
    return SeedsRow(
        norm=norm,
        seeds=count,
        batch_size=config.optim.batch_size,
        alone_ms=1e3 * float(np.median(times["alone"])),
        together_ms=1e3 * float(np.median(times["together"])),
        ratio=timing.ratio(times, "together", "alone"),
    )
