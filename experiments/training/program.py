"""From a configuration to the network, optimizer and jitted functions of one norm."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.config.experiment import TrainConfig
from experiments.data import Dataset
from experiments.methods import Context, make_method
from experiments.methods.method import Bound
from experiments.methods.own_bounds import BoundedProbe
from experiments.models import NETWORKS
from experiments.models.fields import params_at, with_fields
from experiments.training import steps
from experiments.training.parallel import Step, Transform, make_transform
from experiments.training.parallel.batch_size import check_batch_size, round_up
from experiments.training.schedules import make_schedule
from experiments.training.seeds import spread_over_devices, stack
from unitnorm_jax.ics import ICSProbe

EVAL_BATCH = 128  # Images per batch of an evaluation; it does not change the result.


def updates_per_epoch(config: TrainConfig, dataset: Dataset) -> int:
    """Return the number of complete batches of the training images.

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
        train_step: ``train_step(state, batch) -> (state, metrics)``, over all devices; the state
            given is consumed (its buffers are donated).
        eval_step: ``eval_step(state, batch) -> sums``, over all devices.
        train_together: ``train_step`` for several states and as many batches, each of them a stack
            along a first axis.
        updates: Updates of a run.
        schedule: Learning rate of an update, counted from 0.
        augment: ``augment(key, step, images)``: what the network sees of a batch in the update
            after ``step`` others, from the key of the state; jitted.
        model: The network, for a batch that is not spread over a mapped axis.
        probe: Measures the shift of its layers, see ``training.probing``; or None.
        probe_seconds: Time of a measurement by itself; 0 until ``compile_probe`` has taken it.
        bound: The method's own bound on the shift of a layer, see ``experiments.methods.Method``.
        rates: Learning rate of each update, once ``compile_program`` has computed them.
    """

    norm: str
    layers: list[tuple[str, ...]]
    init: Any
    train_step: Step
    eval_step: Step
    train_together: Any
    updates: int
    schedule: optax.Schedule
    augment: Any
    model: Any
    probe: ICSProbe | BoundedProbe | None = None
    probe_seconds: float = 0.0
    bound: Bound | None = None
    rates: np.ndarray = np.zeros(0)


def build_program(
    config: TrainConfig, norm: str, dataset: Dataset, transform: Transform | None = None
) -> Program:
    """Return the program of ``norm``; nothing is compiled yet.

    Args:
        config: The configuration.
        norm: Name of the norm.
        dataset: The images.
        transform: How the steps are spread over devices; default: as ``config.devices`` says.

    Raises:
        ValueError: If the batch size does not fit the devices.
    """
    # Seeds that are trained together are spread over the devices, and their batches are not.
    devices = jax.local_devices()[:1] if config.seeds_together else None
    transform = transform or make_transform(config.devices, devices)
    batch_size = config.optim.batch_size
    accumulate = config.optim.accumulate
    check_batch_size(batch_size, transform.devices, accumulate)
    per_epoch = updates_per_epoch(config, dataset)
    updates = config.optim.epochs * per_epoch
    schedule = make_schedule(config.optim, per_epoch)
    dtype = jnp.dtype(config.devices.precision)
    context = Context(
        # A layer counts its forward passes: one for each micro-batch.
        schedule=lambda count: schedule(count // accumulate),
        updates=updates,
        dtype=None if dtype == jnp.float32 else dtype,
    )
    make = partial(make_model, config, norm, dataset.num_classes)
    # One device applies `model` to a whole batch; the steps, each device the other to its part.
    model, mapped = make(context), make(context._replace(**transform.axes))
    method = make_method(norm, config.norm, context)
    tx = optax.sgd(schedule, momentum=config.optim.momentum, nesterov=config.optim.nesterov)
    penalty = None
    if method.penalty:
        penalty = method.penalty(model, dataset.standardize(dataset.example(1)["image"]))
    train_step = partial(
        steps.train_step,
        weight_penalty=config.optim.weight_penalty,
        label_smoothing=config.optim.label_smoothing,
        augment=dataset.augment,
        accumulate=accumulate,
        after_update=method.after_update,
        penalty=penalty,
    )
    eval_step = partial(steps.eval_step, standardize=dataset.standardize)
    apply_fn = transform.apply_fn(mapped.apply)

    def init(key: jax.Array, images: jax.Array) -> steps.TrainState:
        x = dataset.standardize(images)
        return steps.create_state(key, x, model=model, tx=tx, apply_fn=apply_fn)

    def augment(key: jax.Array, step: int, images: jax.Array) -> jax.Array:
        return dataset.augment(steps.update_key(key, step), images)

    return Program(
        norm=norm,
        layers=model.norm_paths(),
        init=transform.init(init),
        train_step=transform.train_step(train_step, batch_size),
        train_together=jax.jit(jax.vmap(train_step), donate_argnums=0),
        eval_step=transform.eval_step(eval_step, round_up(EVAL_BATCH, transform.devices)),
        updates=updates,
        schedule=schedule,
        augment=jax.jit(augment),
        model=model,
        bound=method.bound,
    )


def make_model(config: TrainConfig, norm: str, num_classes: int, context: Context) -> Any:
    """Return the network with the method called ``norm``; it has ``norm_paths()``.

    Raises:
        ValueError: If the method brings a network of its own, and another one is configured; or the
            network cannot be without skip connections, and is to be.
    """
    method = make_method(norm, config.norm, context)
    name = config.model.name
    if method.network is not None and name != "preact":
        raise ValueError(
            f"norm (={norm!r}) brings a network of its own, so that `model.name` (={name!r}) "
            "cannot be used; choose preact, or another norm."
        )
    # The shape of the others is in their names.
    own = ("blocks", "widths", "bottleneck") if name == "preact" else ()
    network: Any = method.network or NETWORKS[name]
    if not config.model.skip:
        plain = with_fields(network, add=None)
        if plain is network:
            of, other = (f"norm {norm!r}", "norm") if method.network else (repr(name), "network")
            raise ValueError(
                f"`model.skip` (=False) cannot be used with {of}, whose network always has skip "
                f"connections; leave --model.no-skip out, or choose another {other}."
            )
        network = plain
    return network(
        num_classes=num_classes,
        norm=method.norm,
        conv=method.conv,
        dense=method.dense,
        **{field: getattr(config.model, field) for field in own},
    )


def compile_program(
    program: Program, dataset: Dataset, batch_size: int, together: int = 1
) -> Program:
    """Return ``program`` with its functions compiled, so that no timed call compiles.

    Args:
        program: Not compiled.
        dataset: The images.
        batch_size: Images per update.
        together: Number of seeds that are trained in one program.
    """
    batch = dataset.example(batch_size)
    init = program.init.lower(jax.random.key(0), batch["image"]).compile()
    state = init(jax.random.key(0), batch["image"])
    size = program.eval_step.batch_size
    weighted = dataset.example(size) | {"weight": np.zeros(size, np.float32)}
    if together > 1:
        stacks = (spread_over_devices(stack([x] * together)) for x in (state, batch))
        program = program._replace(
            train_together=program.train_together.lower(*stacks).compile(),
        )
    return program._replace(
        init=init,
        # All at once: that of an update does not depend on where a run is resumed.
        rates=np.asarray(jax.vmap(program.schedule)(np.arange(program.updates))),
        train_step=program.train_step.compile(state, batch),
        eval_step=program.eval_step.compile(state, weighted),
    )


def evaluate_test(
    program: Program,
    state: steps.TrainState,
    dataset: Dataset,
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Evaluate ``state`` on all test images, for training and ``experiments.evaluate`` alike.

    Args:
        program: The compiled functions.
        state: State to evaluate.
        dataset: The images.
        before_batch: Called before each batch; may raise to stop.
    """

    def step(state: steps.TrainState, batch: steps.Batch) -> steps.Metrics:
        before_batch()
        return dict(program.eval_step(state, batch))

    size = program.eval_step.batch_size
    batches = dataset.test_batches(size, jax.process_index(), jax.process_count())
    return steps.evaluate(step, state, batches)


def mean_alphas(program: Program, state: steps.TrainState) -> dict[str, float]:
    """Return the mean over channels of each layer's alpha, by layer, from input to output.

    Empty for norms without alpha.
    """
    means = {}
    for path in program.layers:
        params = params_at(state.params, path)
        if "alpha" in params:
            means["/".join(path)] = float(np.mean(params["alpha"]))
    return means
