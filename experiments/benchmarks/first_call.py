"""What a probe's first call costs, part by part, against the model's own forward pass."""

import collections
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp

from experiments.models.resnet import ResNet
from unitnorm_jax import ics

_ROUNDS = 3
_PARTS = {"forward pass": "forward", "its outputs, once": "_take", "measuring": "_shift"}
_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "trace",
    "/jax/core/compile/backend_compile_duration": "compile",
}


@dataclasses.dataclass(frozen=True)
class FirstCallRow:
    """One part of a first call.

    Attributes:
        part: Which.
        trace_s: Seconds of tracing and lowering.
        compile_s: Seconds in the compiler.
        against_forward: Both, in units of those of the forward pass.
    """

    part: str
    trace_s: float
    compile_s: float
    against_forward: float


def measure(image_size: int, images: int) -> list[FirstCallRow]:
    """Compile ResNet-50's forward pass in training mode, and its probe; the least of some rounds.

    Args:
        image_size: Pixels of a side.
        images: In the batch.
    """
    model = ResNet()
    batch = jax.random.normal(jax.random.key(0), (images, image_size, image_size, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
    before, after = (
        jax.tree.map(lambda s, v=v: jnp.full(s.shape, v), shapes) for v in (0.01, 0.02)
    )
    rounds = [_round(model, batch, before, after) for _ in range(_ROUNDS)]
    least = {part: min((r[part] for r in rounds), key=sum) for part in rounds[0]}
    _, outputs, measuring = least.values()
    least["the probe's first call"] = (outputs[0] + measuring[0], outputs[1] + measuring[1])
    unit = sum(least["forward pass"])
    return [
        FirstCallRow(part, trace, compiled, (trace + compiled) / unit)
        for part, (trace, compiled) in least.items()
    ]


def _round(model: Any, batch: jax.Array, before: Any, after: Any) -> dict[str, tuple[float, float]]:
    """Return the seconds of tracing and of compiling by part."""
    spent: dict[tuple[str, str], float] = collections.defaultdict(float)
    waits: list[tuple[float, float]] = []

    def listen(event: str, duration_secs: float, **about: str | int) -> None:
        if event not in _EVENTS:
            return
        now = time.perf_counter()
        waited = sum(end - start for start, end in waits if start > now - duration_secs)
        name = str(about.get("fun_name")).removeprefix("jit(").removesuffix(")")
        spent[name, _EVENTS[event]] += duration_secs - waited
        jax.block_until_ready(jax.live_arrays())  # What still runs takes the compiler's cores.
        waits.append((now, time.perf_counter()))

    @jax.jit
    def forward(variables: Any, batch: jax.Array) -> Any:
        return model.apply(variables, batch, train=True, mutable=["batch_stats"])

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.block_until_ready(forward(before, batch))
        probe = ics.ICSProbe(model, batch, mode="train", train_kwargs={"train": True})
        jax.block_until_ready(probe(before, after))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return {part: (spent[name, "trace"], spent[name, "compile"]) for part, name in _PARTS.items()}
