"""A very small training job, compiled once for all tests that train, stop and resume it."""

import dataclasses
import functools
from pathlib import Path

import jax

from experiments.benchmarks.faults.compare import compare_runs
from experiments.config.experiment import (
    DevicesConfig,
    ModelConfig,
    OptimConfig,
    ProbeConfig,
    TrainConfig,
)
from experiments.data import load_dataset
from experiments.training.loop import train_seeds
from experiments.training.preemption import Preemption
from experiments.training.probing import compile_probe, with_probe
from experiments.training.program import build_program, compile_program
from experiments.training.run import run_folder

# 3 epochs of 11 updates, each in stretches of 6 and 5; a measurement of the shift over 4 updates.
CONFIG = TrainConfig(
    norms=("ubn",),
    seeds=(0,),
    evals_per_epoch=2,
    checkpoint_every=1,
    model=ModelConfig(blocks=(1,), widths=(4,)),
    optim=OptimConfig(epochs=3, batch_size=128),
    probe=ProbeConfig(every=5, lag=4, images=4),
    devices=DevicesConfig(num_devices=1),
)
UPDATES = 33
DATASET = load_dataset("digits")


class StopAfter(Preemption):
    """Asks to stop at the n-th time that it is asked."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


@functools.cache
def program():
    built = with_probe(build_program(CONFIG, "ubn", DATASET), CONFIG.probe, DATASET)
    compiled = compile_program(built, DATASET, CONFIG.optim.batch_size)
    return compile_probe(compiled, DATASET.train_images[: CONFIG.optim.batch_size])


def train_here(folder: Path, preemption: Preemption | None = None, messages=None, **changes):
    """Trains the job in ``folder``, or goes on there."""
    config = dataclasses.replace(CONFIG, **changes)
    say = [].append if messages is None else messages.append
    (run,) = train_seeds(
        config,
        [program()],
        DATASET,
        (0,),
        folder,
        preemption or Preemption(),
        on_message=say,
    )
    return run


@functools.cache
def template():
    """The shapes of a state of the job."""
    init = build_program(CONFIG, "ubn", DATASET).init
    return jax.eval_shape(init, jax.random.key(0), DATASET.train_images[:128])


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two run folders of the job, other than times."""
    folders = [run_folder(job, "ubn", 0) for job in (one, other)]
    checks = compare_runs(*folders, template())
    assert min(check.size for check in checks) > 0
    return [text for check in checks for text in check.differences]
