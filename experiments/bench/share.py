"""What probing adds to training."""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import steps
from experiments.models.preact_resnet import PreActResNet
from experiments.norms import make_norm
from unitnorm_jax import ics

_ROUNDS = 10


@dataclasses.dataclass(frozen=True)
class ShareRow:
    """What probing costs a training run.

    Attributes:
        network: What is trained.
        every: Updates between probes.
        images: Images the probe looks at.
        step_ms: Median time of an update.
        probe_ms: Median time of a probe, its copy of the state before included.
        share: Time of a probe in units of that of ``every`` updates.
    """

    network: str
    every: int
    images: int
    step_ms: float
    probe_ms: float
    share: float


def measure(
    network: str, *, blocks: tuple[int, ...], shape: tuple[int, ...], images: int, every: int
) -> ShareRow:
    """Times updates of the unitized pre-activation ResNet and probes of it, in turns.

    Args:
        network: Its name in the table.
        blocks: Residual blocks of each stage.
        shape: Of a training batch, (n, h, w, c); the time does not depend on what it shows.
        images: Images the probe looks at.
        every: Updates between probes.
    """
    model = PreActResNet(num_classes=10, blocks=blocks, norm=make_norm("ubn"))
    batch = {
        "image": jax.random.normal(jax.random.key(0), shape),
        "label": jnp.arange(shape[0]) % 10,
    }
    tx = optax.sgd(0.01, momentum=0.9, nesterov=True)
    state = steps.create_state(jax.random.key(1), batch["image"], model=model, tx=tx)
    update = jax.jit(functools.partial(steps.train_step, weight_penalty=5e-4), donate_argnums=0)
    probe = ics.ICSProbe(model, batch["image"][:images], eval_kwargs={"train": False})

    def variables() -> dict[str, Any]:
        return {"params": state.params, "batch_stats": state.batch_stats}

    times: dict[str, list[float]] = {"step": [], "probe": []}
    for i in range(_ROUNDS + 2):
        start = time.perf_counter()
        before = jax.block_until_ready(probe.keep(variables()))
        copied = time.perf_counter() - start
        spent = []
        for _ in range(4):
            start = time.perf_counter()
            state, _ = update(state, batch)
            jax.block_until_ready(state.params)
            spent.append(time.perf_counter() - start)
        start = time.perf_counter()
        jax.block_until_ready(probe(before, variables()))
        if i >= 2:
            times["probe"].append(copied + time.perf_counter() - start)
            times["step"].extend(spent[1:])  # the first finds the caches as the probe left them
    step, spent_probing = np.median(times["step"]), np.median(times["probe"])
    return ShareRow(
        network=network,
        every=every,
        images=images,
        step_ms=1e3 * float(step),
        probe_ms=1e3 * float(spent_probing),
        share=float(spent_probing / (every * step)),
    )
