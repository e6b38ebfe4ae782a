"""The three measurements of a method: plain functions from options to what is kept."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich.console import Console

from experiments.analysis.results import read_results
from experiments.benchmarks.step import stepper
from experiments.common.errors import NonFiniteLossError
from experiments.common.timing import interleaved, ratio
from experiments.config.experiment import TrainConfig
from experiments.data import Dataset
from experiments.studies.zoo.config import ZooConfig, batch_config, train_config
from experiments.training.job import train
from experiments.training.parallel import make_transform
from experiments.training.program import Program, build_program, compile_program, evaluate_test
from experiments.training.steps import TrainState


def train_method(config: ZooConfig, method: str, log: Console) -> dict[str, Any]:
    """Run ``train`` with one method, every seed; go on where it was interrupted.

    Returns:
        The results of its summary, and its folder within the study's; or why it diverged.
    """
    folder = config.out / "runs" / method
    job = train_config(config, (method,), str(folder))
    try:
        train(dataclasses.replace(job, resume="auto"), log, figures=False)
    except NonFiniteLossError as error:
        return {"run": folder.name, "diverged": str(error)}
    return {"run": folder.name, "results": read_results(folder).summary["results"]}


def time_method(config: ZooConfig, method: str, dataset: Dataset) -> dict[str, Any]:
    """Time an update against one of the base, in turns.

    Returns:
        ``ratio`` with its quartiles, and milliseconds of both (medians).
    """
    names = {"base": config.base, "method": method}
    times = interleaved(
        {key: _stepper(config, name, dataset) for key, name in names.items()}, config.seconds
    )
    median, low, high = ratio(times, "method", "base")
    return {
        "ratio": median,
        "quartiles": [low, high],
        "ms": 1e3 * float(np.median(times["method"])),
        "base_ms": 1e3 * float(np.median(times["base"])),
        "pairs": len(times["base"]),
    }


def _stepper(config: ZooConfig, method: str, dataset: Dataset) -> Callable[[], Any]:
    """Return a function that makes one update, of a state of its own, on one batch."""
    job = train_config(config, (method,))
    size = config.batch_size
    program = compile_program(build_program(job, method, dataset), dataset, size)
    return stepper(program, next(iter(dataset.pipeline(0, size).batches(0))))


def smallest_batch(config: ZooConfig, method: str, dataset: Dataset) -> dict[str, Any]:
    """Train with smaller and smaller batches, until the network does not train any more.

    Returns:
        ``tried``: batch size and final test accuracy; ``smallest``: the last that trained, None if
        none did.
    """
    tried: list[dict[str, Any]] = []
    smallest = None
    for size in config.batch_sizes:
        accuracy = train_compiled(batch_config(config, method, size), method, dataset)
        tried.append({"batch_size": size, "accuracy": accuracy})
        if accuracy < config.trains:
            break
        smallest = size
    return {"smallest": smallest, "tried": tried}


def train_compiled(job: TrainConfig, method: str, dataset: Dataset) -> float:
    """Train one seed with all updates of an epoch in one program.

    So batches of one take no longer than their arithmetic. The program and the order of the images
    are those of ``train`` on one device; nothing is recorded, and numbers that are not
    finite do not stop it.

    Returns:
        Test accuracy of the last state.
    """
    program = one_device_program(job, method, dataset)
    return evaluate_test(program, last_state(program, job, dataset), dataset)["accuracy"]


def one_device_program(job: TrainConfig, method: str, dataset: Dataset) -> Program:
    """Return the program of a job of which nothing is evaluated during training."""
    transform = make_transform(devices=jax.local_devices()[:1])
    job = dataclasses.replace(job, evals_per_epoch=1)
    return build_program(job, method, dataset, transform)


def last_state(program: Program, job: TrainConfig, dataset: Dataset) -> TrainState:
    """Return the state after all updates of the job's one seed."""
    (seed,), size = job.seeds, job.optim.batch_size
    state = program.init(jax.random.key(seed), dataset.example(size)["image"])
    epoch_of = jax.jit(lambda state, batches: jax.lax.scan(program.train_step, state, batches)[0])
    pipeline = dataset.pipeline(seed, size)
    for epoch in range(job.optim.epochs):
        batches = [(b["image"], b["label"]) for b in pipeline.batches(epoch)]
        images, labels = (np.stack(part) for part in zip(*batches, strict=True))
        state = epoch_of(state, {"image": images, "label": labels})
    return state
