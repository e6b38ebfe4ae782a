"""What probing adds to training: a measurement by itself, and whole runs with and without it."""

import dataclasses
import functools
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.config.experiment import TrainConfig
from experiments.data import Dataset, load_dataset
from experiments.methods import make_norm
from experiments.models.preact_resnet import PreActResNet
from experiments.training import steps
from experiments.training.checkpoint import checksums, state_arrays
from experiments.training.loop import Watch, train_stretch
from experiments.training.preemption import Preemption
from experiments.training.probing import compile_probe, with_probe
from experiments.training.program import Program, build_program, compile_program, updates_per_epoch
from experiments.training.run import start
from unitnorm_jax import ics

BLOCK = 5  # Epochs that are timed as one: an epoch of 22 updates has 2 measurements or 3.
_BLOCKS_PER_SECOND = 10
_ROUNDS = 10


@dataclasses.dataclass(frozen=True)
class ShareRow:
    """What a measurement by itself, every few updates, would add to them.

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
    """Time updates of the unitized pre-activation ResNet and probes of it, in turns.

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


@dataclasses.dataclass(frozen=True)
class RunRow:
    """What probing adds to the run of ``train`` on the digits.

    Attributes:
        norm: The method.
        every: Updates between measurements.
        images: Images the probe looks at.
        step_ms: Median, over blocks, of the time of an update in the run that is not probed.
        probe_ms: Time of a measurement by itself, as the run takes it before it begins.
        added: Time of a block of the probed run to that of the same of the other, less 1: median
            and quartiles of the blocks.
        blocks: Number of blocks.
        block_updates: Updates of a block.
    """

    norm: str
    every: int
    images: int
    step_ms: float
    probe_ms: float
    added: tuple[float, float, float]
    blocks: int
    block_updates: int


def measure_run(
    norm: str,
    config: TrainConfig,
    seconds: float,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> RunRow:
    """Train with and without the probe, as ``train`` does, in turns.

    Args:
        norm: The method.
        config: What to train; of its seeds, one after the other from 0.
        seconds: For each there are about 10 blocks of 5 epochs; whole runs.
        track: Shows how far it is: is given the seeds, and yields them.
    """
    dataset = load_dataset(config.data)
    size = config.optim.batch_size
    program = with_probe(build_program(config, norm, dataset), config.probe, dataset)
    program = compile_program(program, dataset, size)
    program = compile_probe(program, dataset.example(size)["image"])
    programs = {"probed": program, "plain": program._replace(probe=None)}
    each = config.optim.epochs // BLOCK
    blocks: dict[str, list[float]] = {name: [] for name in programs}
    for seed in track(range(max(1, math.ceil(_BLOCKS_PER_SECOND * seconds / each)))):
        for name, times in train_in_turns(config, programs, dataset, seed).items():
            blocks[name].extend(times[: each * BLOCK].reshape(each, BLOCK).sum(axis=1))
    low, added, high = np.percentile(np.divide(blocks["probed"], blocks["plain"]) - 1, [25, 50, 75])
    updates = BLOCK * updates_per_epoch(config, dataset)
    return RunRow(
        norm=norm,
        every=config.probe.every,
        images=config.probe.images,
        step_ms=1e3 * float(np.median(blocks["plain"])) / updates,
        probe_ms=1e3 * program.probe_seconds,
        added=(float(added), float(low), float(high)),
        blocks=len(blocks["plain"]),
        block_updates=updates,
    )


def train_in_turns(
    config: TrainConfig, programs: Mapping[str, Program], dataset: Dataset, seed: int
) -> dict[str, np.ndarray]:
    """Return the time of every epoch of runs that are to be the same but for their probes.

    Each epoch is trained by all in random order: what ran before decides what is in the caches.
    Evaluations and checkpoints are left out.

    Args:
        config: What to train.
        programs: Compiled, by name.
        dataset: The images.
        seed: The seed.

    Raises:
        RuntimeError: If the runs do not end in one state.
    """
    updates, rng = updates_per_epoch(config, dataset), np.random.default_rng(seed)
    times = np.zeros((len(programs), config.optim.epochs))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = [
            start(config, program, dataset, seed, folder / name, stack)
            for name, program in programs.items()
        ]
        for epoch in range(config.optim.epochs):
            for i in rng.permutation(len(runs)):
                begin = time.perf_counter()
                train_stretch(runs[i], epoch, (epoch + 1) * updates, Watch(Preemption()))
                times[i, epoch] = time.perf_counter() - begin
        first, *others = (checksums(state_arrays(run.state)) for run in runs)
    for name, sums in zip(list(programs)[1:], others, strict=True):
        changed = [path for path in first if sums[path] != first[path]]
        if changed:
            raise RuntimeError(
                f"training with seed {seed} ended in another state with the program {name!r} than "
                f"with {next(iter(programs))!r}, so that their times cannot be compared: "
                f"{len(changed)} arrays differ, the first is {changed[0]}."
            )
    return dict(zip(programs, times, strict=True))
