"""The three measurements of a method: plain functions from options to what is kept."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from experiments import steps
from experiments.bench.timing import interleaved, ratio
from experiments.build import (
    EVAL_BATCH,
    build_program,
    compile_program,
    make_model,
    updates_per_epoch,
)
from experiments.config import TrainConfig
from experiments.data import Dataset
from experiments.nonfinite import NonFiniteLossError
from experiments.norms import Context, make_method
from experiments.results import read_results
from experiments.train import train
from experiments.zoo.config import ZooConfig, batch_config, train_config


def train_method(config: ZooConfig, method: str, log: Console) -> dict[str, Any]:
    """Runs ``experiments.train`` with one method, every seed.

    Returns:
        The results of its summary, and its folder within the study's; or why it diverged.
    """
    folder = _new_folder(config.out / "runs", method)
    try:
        train(train_config(config, (method,), str(folder)), log, figures=False)
    except NonFiniteLossError as error:
        return {"run": folder.name, "diverged": str(error)}
    return {"run": folder.name, "results": read_results(folder).summary["results"]}


def _new_folder(runs: Path, method: str) -> Path:
    """The first of METHOD, METHOD-2, ... that is not there: an interrupted run stays."""
    runs.mkdir(parents=True, exist_ok=True)
    number = 1
    while (folder := runs / (method if number == 1 else f"{method}-{number}")).exists():
        number += 1
    return folder


def time_method(config: ZooConfig, method: str, dataset: Dataset) -> dict[str, Any]:
    """Times an update against one of the base, in turns.

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
    """A function that makes one update, of a state of its own, on one batch."""
    job = train_config(config, (method,))
    size = config.batch_size
    program = compile_program(build_program(job, method, dataset), dataset, size)
    batch = next(iter(dataset.pipeline(0, size).batches(0)))
    batch = {name: jnp.asarray(batch[name]) for name in ("image", "label")}
    state = program.init(jax.random.key(0), batch["image"])

    def step() -> Any:
        nonlocal state
        state, metrics = program.train_step(state, batch)
        return metrics

    return step


def smallest_batch(config: ZooConfig, method: str, dataset: Dataset) -> dict[str, Any]:
    """Trains with smaller and smaller batches, until the network does not train any more.

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
    """Trains one seed with all updates of an epoch in one program: batches of one take no longer
    than their arithmetic.

    Network, optimizer, schedule, data order and augmentation are those of ``experiments.train``;
    nothing is recorded, and numbers that are not finite do not stop it.

    Returns:
        Test accuracy of the last state.
    """
    updates = updates_per_epoch(dataclasses.replace(job, evals_per_epoch=1), dataset)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=job.optim.learning_rate,
        warmup_steps=int(job.optim.warmup * updates * job.optim.epochs),
        decay_steps=updates * job.optim.epochs,
    )
    context = Context(schedule=schedule)
    model = make_model(job, method, dataset.num_classes, context)
    tx = optax.sgd(schedule, momentum=job.optim.momentum, nesterov=True)
    (seed,), size = job.seeds, job.optim.batch_size
    init = jax.jit(partial(steps.create_state, model=model, tx=tx))
    state = init(jax.random.key(seed), dataset.standardize(dataset.example(size)["image"]))
    step = partial(
        steps.train_step,
        weight_penalty=job.optim.weight_penalty,
        augment=dataset.augment,
        after_update=make_method(method, job.norm, context).after_update,
    )
    epoch_of = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches)[0])
    pipeline = dataset.pipeline(seed, size)
    for epoch in range(job.optim.epochs):
        batches = [(b["image"], b["label"]) for b in pipeline.batches(epoch)]
        images, labels = (np.stack(part) for part in zip(*batches, strict=True))
        state = epoch_of(state, {"image": images, "label": labels})
    evaluate = jax.jit(partial(steps.eval_step, standardize=dataset.standardize))
    return steps.evaluate(evaluate, state, dataset.test_batches(EVAL_BATCH))["accuracy"]
