"""From a configuration to the network, optimizer and jitted functions of one norm."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments import steps
from experiments.config import TrainConfig
from experiments.data import Dataset
from experiments.models import PreActResNet
from experiments.norms import Context, make_method
from unitnorm_jax.ics import ICSProbe

EVAL_BATCH = 128  # Images per batch of an evaluation; it does not change the result.


def updates_per_epoch(config: TrainConfig, dataset: Dataset) -> int:
    """Returns the number of complete batches of the training images.

    Raises:
        ValueError: If there is none, or there are fewer than evaluations.
    """
    images = dataset.train_size
    updates = images // config.optim.batch_size
    if updates < 1:
        raise ValueError(
            f"`batch_size` (={config.optim.batch_size}) must be at most the number of training "
            f"images: {images} in {config.data.dataset}."
        )
    if updates < config.evals_per_epoch:
        raise ValueError(
            f"`evals_per_epoch` (={config.evals_per_epoch}) must be at most the number of updates "
            f"per epoch: {updates} for `batch_size` (={config.optim.batch_size})."
        )
    return updates


class Program(NamedTuple):
    """What training with one norm needs; the same for every seed.

    Attributes:
        norm: Name of the norm.
        layers: Paths of the normalization layers, from input to output.
        init: ``init(key, images) -> state``, jitted.
        train_step: ``train_step(state, batch) -> (state, metrics)``, jitted; the state given is
            consumed (its buffers are donated).
        eval_step: ``eval_step(state, batch) -> sums``, jitted.
        schedule: Learning rate of an update, counted from 0.
        augment: ``augment(key, step, images)``: what the network sees of a batch in the update
            after ``step`` others, from the key of the state; jitted.
        model: The network.
        probe: Measures the shift of its layers, see ``experiments.probing``; None where nothing is
            probed.
    """

    norm: str
    layers: list[tuple[str, ...]]
    init: Any
    train_step: Any
    eval_step: Any
    schedule: optax.Schedule
    augment: Any
    model: Any
    probe: ICSProbe | None = None


def build_program(config: TrainConfig, norm: str, dataset: Dataset) -> Program:
    """Returns the program of ``norm``; nothing is compiled yet."""
    updates = config.optim.epochs * updates_per_epoch(config, dataset)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.optim.learning_rate,
        warmup_steps=int(config.optim.warmup * updates),
        decay_steps=updates,
    )
    model = make_model(config, norm, dataset.num_classes, Context(schedule=schedule))
    tx = optax.sgd(schedule, momentum=config.optim.momentum, nesterov=True)
    train_step = partial(
        steps.train_step,
        weight_penalty=config.optim.weight_penalty,
        augment=dataset.augment,
    )

    def init(key: jax.Array, images: jax.Array) -> steps.TrainState:
        return steps.create_state(key, dataset.standardize(images), model=model, tx=tx)

    def augment(key: jax.Array, step: int, images: jax.Array) -> jax.Array:
        return dataset.augment(steps.update_key(key, step), images)

    return Program(
        norm=norm,
        layers=model.norm_paths(),
        init=jax.jit(init),
        train_step=jax.jit(train_step, donate_argnums=0),
        eval_step=jax.jit(partial(steps.eval_step, standardize=dataset.standardize)),
        schedule=schedule,
        augment=jax.jit(augment),
        model=model,
    )


def make_model(config: TrainConfig, norm: str, num_classes: int, context: Context) -> Any:
    """Returns the network with the method called ``norm``; it has ``norm_paths()``."""
    method = make_method(norm, config.norm, context)
    network = method.network or PreActResNet
    return network(
        num_classes=num_classes,
        blocks=config.model.blocks,
        widths=config.model.widths,
        bottleneck=config.model.bottleneck,
        norm=method.norm,
        conv=method.conv,
        dense=method.dense,
    )


def compile_program(program: Program, dataset: Dataset, batch_size: int) -> Program:
    """Returns ``program`` with its functions compiled, so that no timed call compiles."""
    batch = dataset.example(batch_size)
    init = program.init.lower(jax.random.key(0), batch["image"]).compile()
    state = init(jax.random.key(0), batch["image"])
    weighted = dataset.example(EVAL_BATCH) | {"weight": np.zeros(EVAL_BATCH, np.float32)}
    return program._replace(
        init=init,
        train_step=program.train_step.lower(state, batch).compile(),
        eval_step=program.eval_step.lower(state, weighted).compile(),
    )


def evaluate_test(
    program: Program,
    state: steps.TrainState,
    dataset: Dataset,
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Evaluates ``state`` on all test images, for training and ``experiments.evaluate`` alike.

    Args:
        program: The compiled functions.
        state: State to evaluate.
        dataset: The images.
        before_batch: Called before each batch; may raise to stop.
    """

    def step(state: steps.TrainState, batch: steps.Batch) -> steps.Metrics:
        before_batch()
        return dict(program.eval_step(state, batch))

    return steps.evaluate(step, state, dataset.test_batches(EVAL_BATCH))


def mean_alphas(program: Program, state: steps.TrainState) -> dict[str, float]:
    """Returns the mean over channels of each layer's alpha, by layer, from input to output.

    Empty for norms without alpha.
    """
    means = {}
    for path in program.layers:
        params: Any = state.params
        for name in path:
            params = params.get(name, {})
        if "alpha" in params:
            means["/".join(path)] = float(np.mean(params["alpha"]))
    return means
