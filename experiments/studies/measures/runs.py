"""Training and measuring: one program for all learning rates and seeds."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data import ArrayDataset, load_arrays
from experiments.models.fields import params_at
from experiments.studies.measures.config import Case, Cell, MeasuresConfig
from experiments.studies.measures.summary import COLUMNS
from experiments.training import steps
from experiments.training.probing import probe_batch, with_probe
from experiments.training.program import EVAL_BATCH, build_program, updates_per_epoch
from experiments.training.schedules import make_schedule
from unitnorm_jax import ics

GRADIENTS = {"gradient L2": "distance", "gradient cosine": "cosine"}


class Jitted(NamedTuple):
    """What the runs of a method and batch size share.

    Attributes:
        init: ``init(key, images, rate)``.
        step: ``step(state, batch)``.
        evaluate: ``evaluate(state, batch)``, sums.
        probe: Of the shift.
        gradient: ``gradient(before, after)``, gradient ICS by the paths of ``layers``.
        layers: Those with parameters.
        updates: Of a run.
        places: Of the normalization layers.
    """

    init: Callable[..., Any]
    step: Callable[..., Any]
    evaluate: Callable[..., Any]
    probe: Any
    gradient: Callable[..., Any]
    layers: tuple[str, ...]
    updates: int
    places: list[tuple[str, ...]]


def times_rate() -> optax.GradientTransformation:
    """Multiply updates by a number in the state: a learning rate that is no constant."""
    return optax.GradientTransformation(
        lambda params: jnp.ones(()),
        lambda updates, rate, params=None: (jax.tree.map(lambda u: rate * u, updates), rate),
    )


def make(
    config: MeasuresConfig, cell: Cell, dataset: ArrayDataset, shared: Jitted | None = None
) -> Jitted:
    """Return the functions of a cell; those of another learning rate are the same.

    Args:
        config: The options.
        cell: Data set, method and batch size count.
        dataset: The images.
        shared: The functions of another batch size, whose measurements are the same.
    """
    training = config.training(cell)
    program = with_probe(
        build_program(training, training.norms[0], dataset), training.probe, dataset
    )
    model = program.model
    unit = training.optim.learning_rate
    schedule = make_schedule(training.optim, updates_per_epoch(training, dataset))
    tx = optax.chain(
        optax.sgd(lambda step: schedule(step) / unit, momentum=0.9, nesterov=True), times_rate()
    )
    images, labels = probe_batch(training.probe, dataset)
    rngs = {name: jax.random.key(i) for i, name in enumerate(steps.STREAMS)}
    variables = jax.eval_shape(
        lambda: model.init({"params": jax.random.key(0), **rngs}, images, train=True)
    )
    layers = ics.layer_order(model, variables, images, train=True, rngs=rngs)

    def init(key: jax.Array, images: jax.Array, rate: Any) -> steps.TrainState:
        state = steps.create_state(key, dataset.standardize(images), model=model, tx=tx)
        inner, _ = state.opt_state
        return state.replace(opt_state=(inner, jnp.asarray(rate, jnp.float32)))

    def loss(params: Any, before: Any) -> jax.Array:
        logits, _ = model.apply(
            {**before, "params": params}, images, train=True, rngs=rngs, mutable=["batch_stats"]
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def gradient(before: Any, after: Any) -> ics.measures.GradientICS:
        params, updated = before["params"], after["params"]
        return ics.measures.gradient_ics(loss, params, updated, layers=layers, args=(before,))

    step = functools.partial(
        steps.train_step,
        weight_penalty=training.optim.weight_penalty,
        augment=dataset.augment,
    )
    if shared is not None:
        return shared._replace(
            init=jax.jit(init), step=jax.jit(step, donate_argnums=0), updates=program.updates
        )
    return Jitted(
        init=jax.jit(init),
        step=jax.jit(step, donate_argnums=0),
        evaluate=jax.jit(functools.partial(steps.eval_step, standardize=dataset.standardize)),
        probe=program.probe,
        gradient=gradient,
        layers=layers,
        updates=program.updates,
        places=program.layers,
    )


def run(
    case: Case, config: MeasuresConfig, dataset: ArrayDataset, jitted: Jitted
) -> dict[str, Any]:
    """Train one network and measure it.

    Returns:
        The case, ``accuracy`` and ``cross_entropy`` on the test images, ``finite``, and
        ``measured``: per measure a list (times) of lists (places of normalization), and for each
        time the medians over convolutions of gradient ICS, relative to the gradient, and cosine.
    """
    size = case.cell.batch_size
    example = dataset.example(size)["image"]
    state = jitted.init(jax.random.key(case.seed), example, case.cell.learning_rate)
    at = set(np.round(np.linspace(0, jitted.updates, config.probes + 1)[1:]).astype(int).tolist())
    found: dict[str, list[Any]] = {}
    losses = []
    for update, batch in enumerate(_batches(dataset, case.seed, size, jitted.updates), 1):
        if update not in at:
            state, metrics = jitted.step(state, batch)
            continue
        before = jax.tree.map(lambda x: x.copy(), _variables(state))
        state, metrics = jitted.step(state, batch)
        losses.append(float(metrics["loss"]))
        if not np.isfinite(losses[-1]):
            break
        after = _variables(state)
        for name, values in _measured(jitted, before, after).items():
            found.setdefault(name, []).append(values)
    sums = steps.evaluate(jitted.evaluate, state, dataset.test_batches(EVAL_BATCH))
    finite = bool(np.isfinite(losses).all() and sums["not_finite"] == 0)
    return {
        **case.cell._asdict(),
        "seed": case.seed,
        "finite": finite,
        "accuracy": sums["accuracy"],
        "cross_entropy": sums["cross_entropy"],
        "measured": found,
    }


def _measured(jitted: Jitted, before: Any, after: Any) -> dict[str, list[float] | float]:
    rows = jitted.probe(before, after).rows()
    found: dict[str, Any] = {
        name: [_digits(row[column]) for row in rows] for name, column in COLUMNS.items()
    }
    shift = jax.device_get(jitted.gradient(before, after))._asdict()
    places = ["/".join(path) for path in jitted.places]
    for name, field in GRADIENTS.items():
        by_layer = dict(zip(jitted.layers, shift[field].tolist(), strict=True))
        found[name] = [_digits(by_layer.get(place, np.nan)) for place in places]
    # Of layers with kernels behind another one: the first has no layer before it.
    kernels = [
        i
        for i, layer in enumerate(jitted.layers)
        if i and "kernel" in params_at(before["params"], tuple(layer.split("/")))
    ]
    norm = shift["norm"][kernels]
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = shift["distance"][kernels] / norm
    found["convolutions, L2 / norm"] = _digits(float(np.median(relative)))
    found["convolutions, cosine"] = _digits(float(np.median(shift["cosine"][kernels])))
    gaps = [row["certified_upper"] - row["certified_lower"] for row in rows]
    found["open"] = sum(
        not row["exact"] and not gap <= 1e-3 * row["value"]
        for row, gap in zip(rows, gaps, strict=True)
    )
    return found


def _variables(state: Any) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


def _batches(dataset: ArrayDataset, seed: int, size: int, updates: int) -> Iterator[Any]:
    epoch, left = 0, updates
    with closing(dataset.pipeline(seed, size)) as pipeline:
        while left > 0:
            for batch in pipeline.batches(epoch):
                yield batch
                left -= 1
                if left == 0:
                    return
            epoch += 1


@functools.cache
def load(config: MeasuresConfig, dataset: str) -> ArrayDataset:
    """Return a data set of the study."""
    (cell, *_) = (cell for cell in config.cells() if cell.dataset == dataset)
    whole = load_arrays(config.training(cell).data)
    if dataset == "digits" or config.shrink == 1:
        return whole
    train, test = (shrunk(x, config.shrink) for x in (whole.train_images, whole.test_images))
    name = f"{whole.name}, {train.shape[1]}x{train.shape[2]}"
    return dataclasses.replace(whole, name=name, train_images=train, test_images=test)


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """Return images of fewer pixels, means of squares, rounded.

    Example:
        >>> import numpy as np
        >>> shrunk(np.array([0, 4, 8, 8], np.uint8).reshape(1, 2, 2, 1), 2).ravel().tolist()
        [5]
    """
    n, h, w, c = images.shape
    squares = images.reshape(n, h // side, side, w // side, side, c)
    return np.round(squares.mean((2, 4))).astype(images.dtype)
