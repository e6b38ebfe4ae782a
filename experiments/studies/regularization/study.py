"""The measurements: training, folding and evaluating one hidden layer, as plain functions.

Everything is full-batch, so that the statistics of batch normalization are those of the training
set and the implied penalty is exact; and the data of all seeds, or all penalties, train at once.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data import ArrayDataset
from experiments.training.steps import predicted
from unitnorm_jax.contrib.implied_penalty import implied_penalty
from unitnorm_jax.functional import fold_batch_norm

NETWORKS = ("bn", "bn, trained scale", "no norm")
EPSILON = 1e-5


class Data(NamedTuple):
    """Noisy images as vectors, with their labels, of one seed or several (a leading axis)."""

    train: Any
    train_labels: Any
    validation: Any
    validation_labels: Any
    test: Any
    test_labels: Any


class Settings(NamedTuple):
    """What all networks share (static and hashable).

    Attributes:
        hidden: Units of the hidden layer.
        classes: Number of logits.
        scale: Scale behind batch normalization, where it is fixed.
        output_penalty: Factor of the sum of squared weights of the output layer.
        updates: Full-batch updates of Adam.
        learning_rate: Its rate at the start; cosine decay to zero.
    """

    hidden: int
    classes: int
    scale: float
    output_penalty: float
    updates: int
    learning_rate: float


def noisy_data(dataset: ArrayDataset, noise: float, seed: int, images: int | None) -> Data:
    """Return every image with noise of its own, drawn once: it is part of the data.

    Args:
        dataset: Images.
        noise: Standard deviation of the noise, in units of that of all training pixels.
        seed: Of the noise, and of what is set aside.
        images: At most so many training images, validation included; None for all.

    Returns:
        A fifth of the training images is set aside for validation.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(dataset.train_images))[:images]
    held = len(order) // 5

    def vectors(images: np.ndarray) -> np.ndarray:
        x = np.asarray(dataset.standardize(images)).reshape(len(images), -1)
        return x + np.float32(noise) * rng.normal(size=x.shape).astype(np.float32)

    parts = [
        (vectors(dataset.train_images[chosen]), dataset.train_labels[chosen])
        for chosen in (order[held:], order[:held])
    ]
    parts.append((vectors(dataset.test_images), dataset.test_labels))
    return Data(*(array for part in parts for array in part))


def initial_params(key: jax.Array, inputs: int, settings: Settings) -> dict[str, Any]:
    """He-normal kernels; the same for every network."""
    keys = jax.random.split(key)
    he = jax.nn.initializers.he_normal()
    return {
        "kernel": he(keys[0], (inputs, settings.hidden)),
        "bias": jnp.zeros(settings.hidden),
        "scale": jnp.full(settings.hidden, settings.scale),
        "output": {
            "kernel": he(keys[1], (settings.hidden, settings.classes)),
            "bias": jnp.zeros(settings.classes),
        },
    }


def logits(hidden: jax.Array, output: dict[str, jax.Array]) -> jax.Array:
    """Return the output layer behind the ReLU."""
    return jax.nn.relu(hidden) @ output["kernel"] + output["bias"][None]


def folded(params: dict[str, Any], x: jax.Array, network: str, settings: Settings) -> Any:
    """Kernel and bias of the hidden layer without batch normalization, and its scale."""
    if network == "no norm":
        return params["kernel"], params["bias"], None
    scale = params["scale"]
    if network == "bn":
        scale = jnp.full_like(scale, settings.scale)
    u = x @ params["kernel"]
    kernel, bias = fold_batch_norm(
        params["kernel"], u.mean(0), u.var(0), scale, params["bias"], epsilon=EPSILON
    )
    return kernel, bias, scale


def cross_entropy(kernel: Any, bias: Any, output: Any, x: Any, labels: Any) -> jax.Array:
    """Mean over images, in nats, of the network without batch normalization."""
    values = logits(x @ kernel + bias[None], output)
    return optax.softmax_cross_entropy_with_integer_labels(values, labels).mean()


def train_and_measure(
    key: jax.Array, data: Data, weight_penalty: jax.Array, network: str, settings: Settings
) -> dict[str, jax.Array]:
    """Train one network and measure it: what a row holds beside its name.

    The loss is cross-entropy + weight_penalty |kernel|^2 + output_penalty |output kernel|^2.
    Folding is part of it: differentiating through the statistics is batch normalization.
    """
    params = initial_params(key, data.train.shape[-1], settings)
    schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.updates)
    tx = optax.adam(schedule)

    def loss(params: dict[str, Any]) -> jax.Array:
        kernel, bias, _ = folded(params, data.train, network, settings)
        value = cross_entropy(kernel, bias, params["output"], data.train, data.train_labels)
        penalty = weight_penalty * jnp.sum(jnp.square(params["kernel"]))
        output_penalty = jnp.sum(jnp.square(params["output"]["kernel"]))
        return value + penalty + settings.output_penalty * output_penalty

    def update(state: Any, _: Any) -> tuple[Any, None]:
        params, opt_state = state
        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.lax.scan(update, (params, tx.init(params)), length=settings.updates)
    return _measure(params, data, network, settings)


def _measure(params: Any, data: Data, network: str, settings: Settings) -> dict[str, jax.Array]:
    kernel, bias, scale = folded(params, data.train, network, settings)
    output = params["output"]
    train = functools.partial(cross_entropy, x=data.train, labels=data.train_labels)
    gradient = jax.grad(train)(kernel, bias=bias, output=output)
    implied = implied_penalty(kernel, gradient, scale)
    centred = data.train - data.train.mean(0, keepdims=True)
    stretched = centred.T @ (centred @ kernel) / len(centred)  # Sigma v
    constraint = jnp.sum(kernel * stretched, 0)
    squared = jnp.sum(jnp.square(kernel), 0)
    rest = gradient + 2 * implied.multiplier[None] * stretched
    found = {
        "train_cross_entropy": train(kernel, bias=bias, output=output),
        "scale": jnp.asarray(settings.scale),
        "power": jnp.mean(jnp.square(centred)),
        "norms": jnp.sqrt(squared),
        "deviations": jnp.sqrt(constraint),
        "multipliers": implied.multiplier,
        "weight_decays": implied.weight_decay,
        # Of the layer as a whole: the one coefficient with the same pull.
        "weight_decay": jnp.sum(implied.weight_decay * squared) / jnp.sum(squared),
        "residual": jnp.linalg.norm(rest) / jnp.linalg.norm(gradient),
    }
    for part in ("validation", "test"):
        x, labels = getattr(data, part), getattr(data, f"{part}_labels")
        values = logits(x @ kernel + bias[None], output)
        found[f"{part}_cross_entropy"] = cross_entropy(kernel, bias, output, x, labels)
        found[f"{part}_accuracy"] = jnp.mean(predicted(values) == labels)
    return found


@functools.partial(jax.jit, static_argnames=("network", "settings"))
def _run(keys: Any, data: Data, penalties: jax.Array, network: str, settings: Settings) -> Any:
    run = functools.partial(train_and_measure, network=network, settings=settings)
    by_seed = jax.vmap(run, in_axes=(0, 0, None))
    return jax.lax.map(lambda penalty: by_seed(keys, data, penalty), penalties)


def measure_noise(
    dataset: ArrayDataset,
    noise: float,
    seeds: Sequence[int],
    penalties: Sequence[float],
    settings: Settings,
    images: int | None = None,
) -> list[dict[str, Any]]:
    """Train every network at one level of noise: one row per network, penalty and seed."""
    data = [noisy_data(dataset, noise, seed, images) for seed in seeds]
    stacked = Data(*(jnp.stack(parts) for parts in zip(*data, strict=True)))
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    rows = []
    for network in NETWORKS:
        chosen = jnp.asarray(penalties if network == "no norm" else [0.0], jnp.float32)
        found = jax.device_get(_run(keys, stacked, chosen, network, settings))
        for i in range(len(chosen)):
            for j, seed in enumerate(seeds):
                values = jax.tree.map(lambda a, i=i, j=j: a[i, j].tolist(), found)
                penalty = penalties[i] if network == "no norm" else 0.0
                row = {"network": network, "noise": noise, "seed": seed, "penalty": penalty}
                rows.append(row | values)
    return rows
