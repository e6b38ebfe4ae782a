"""Calls outside jit against ``nn.BatchNorm``'s: arrays so small that dispatch is all they take."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from experiments.common import timing
from unitnorm_jax.linen import UnitizedBatchNorm

SHAPES = ((8, 16), (8, 4, 4, 16))
CALLS = ("training", "inference", "gradient")


@dataclasses.dataclass(frozen=True)
class EagerRow:
    """One call.

    Attributes:
        shape: Of the input.
        call: training: the layer; inference: the same, with running statistics; gradient: of the
            sum of its outputs with respect to the parameters.
        base_ms: Median time of ``nn.BatchNorm``'s.
        rounds: How often each was timed.
        ratio: Of the time of the unitized layer's to that in the same round: median and quartiles.
    """

    shape: tuple[int, ...]
    call: str
    base_ms: float
    rounds: int
    ratio: tuple[float, float, float]


def measure(shape: tuple[int, ...], call: str, seconds: float) -> EagerRow:
    """Time both layers in turns.

    Args:
        shape: Of the input.
        call: Of ``CALLS``.
        seconds: How long to measure.
    """
    layers = {"BatchNorm": nn.BatchNorm, "UnitizedBatchNorm": UnitizedBatchNorm}
    times = timing.interleaved(
        {name: _caller(layer, shape, call) for name, layer in layers.items()}, seconds
    )
    return EagerRow(
        shape=shape,
        call=call,
        base_ms=1e3 * float(np.median(times["BatchNorm"])),
        rounds=len(times["BatchNorm"]),
        ratio=timing.ratio(times, "UnitizedBatchNorm", "BatchNorm"),
    )


def _caller(layer: Any, shape: tuple[int, ...], call: str) -> Callable[[], Any]:
    module = layer(use_running_average=call == "inference")
    x = jax.random.normal(jax.random.key(0), shape)
    variables = module.init(jax.random.key(1), x)
    if call == "inference":
        return lambda: module.apply(variables, x)

    def train(params: Any) -> Any:
        return module.apply({**variables, "params": params}, x, mutable=["batch_stats"])

    if call == "training":
        return lambda: train(variables["params"])
    gradient = jax.grad(lambda params: train(params)[0].sum())
    return lambda: gradient(variables["params"])
