"""Training and evaluation steps: pure functions of a state and a batch, for any transform."""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

from experiments.data.pipeline import Batch as Batch
from experiments.data.pipeline import eval_batches as eval_batches

Metrics = dict[str, jax.Array]


class TrainState(train_state.TrainState):
    """Flax's ``TrainState`` with running statistics and a random key.

    Attributes:
        batch_stats: The ``batch_stats`` collection; empty for networks that have none.
        key: Random key; the augmentation of update ``t`` uses ``fold_in(key, t)``.
    """

    batch_stats: Any
    key: jax.Array


def create_state(
    key: jax.Array,
    images: jax.Array | np.ndarray,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
) -> TrainState:
    """Returns the initial state of ``model``; ``jit`` with ``model`` and ``tx`` bound.

    Args:
        key: Random key of the run: initial weights and augmentation follow from it.
        images: A batch, ``(n, h, w, c)``; only its shape and dtype matter.
        model: Network with ``__call__(x, train)``.
        tx: Optimizer.
    """
    init_key, state_key = jax.random.split(key)
    variables = model.init(init_key, images, train=False)
    return TrainState.create(
        apply_fn=model.apply,
        params=variables["params"],
        tx=tx,
        batch_stats=variables.get("batch_stats", {}),
        key=state_key,
    )


def kernel_penalty(params: Any) -> jax.Array:
    """Returns the sum of squares of all kernels; scale, bias and alpha are left out."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [leaf for path, leaf in leaves if path[-1].key == "kernel"]
    return sum((jnp.sum(jnp.square(kernel)) for kernel in kernels), start=jnp.zeros(()))


def update_key(key: jax.Array, step: jax.Array | int, axis_name: str | None = None) -> jax.Array:
    """Returns the random key of the update after ``step`` others, on this part of the batch.

    Args:
        key: Key of the state.
        step: Updates done before.
        axis_name: Mapped axis over which the batch is split, None where it is not.
    """
    key = jax.random.fold_in(key, step)
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    weight_penalty: float = 0.0,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One update on one batch.

    loss = mean cross-entropy + ``weight_penalty`` * sum of squared kernels.

    Args:
        state: State before the update.
        batch: ``image`` ``(n, h, w, c)`` and ``label`` ``(n,)``.
        weight_penalty: Factor of the sum of squared kernels (there is no factor 1/2).
        augment: Maps a random key and the batch's images to the network's input; None is the
            identity.
        axis_name: Mapped axis over which the batch is split, None where it is not. The network's
            norm needs the same name to use the statistics of the whole batch.

    Returns:
        State after the update, and scalars of the batch before it: ``loss``, ``cross_entropy``,
        ``accuracy`` and ``grad_norm``.
    """
    images = jnp.asarray(batch["image"])
    if augment is not None:
        images = augment(update_key(state.key, state.step, axis_name), images)

    def mean(x: Any) -> Any:
        return x if axis_name is None else jax.lax.pmean(x, axis_name)

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
        logits, updated = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        correct = jnp.argmax(logits, axis=-1) == batch["label"]
        cross_entropy, accuracy = mean((jnp.mean(losses), jnp.mean(correct)))
        loss = cross_entropy + weight_penalty * kernel_penalty(params)
        metrics = {"loss": loss, "cross_entropy": cross_entropy, "accuracy": accuracy}
        return loss, (metrics, updated.get("batch_stats", {}))

    grads, (metrics, batch_stats) = jax.grad(loss_fn, has_aux=True)(state.params)
    # Where the transform has not summed the gradients already (vmap, pmap), this does; where it
    # has (shard_map, through the mean inside the loss), the mean of equal numbers changes nothing.
    grads, batch_stats = mean((grads, batch_stats))
    metrics["grad_norm"] = optax.tree.norm(grads)
    return state.apply_gradients(grads=grads, batch_stats=batch_stats), metrics


def eval_step(
    state: TrainState,
    batch: Batch,
    *,
    standardize: Callable[[jax.Array], jax.Array] | None = None,
    axis_name: str | None = None,
) -> Metrics:
    """Evaluates one batch with the running statistics.

    Args:
        state: State to evaluate.
        batch: ``image`` ``(n, h, w, c)``, ``label`` ``(n,)`` and ``weight`` ``(n,)``: 1 for an
            image that counts, 0 for padding.
        standardize: Maps the batch's images to the network's input; None is the identity.
        axis_name: Mapped axis over which the batch is split, None where it is not.

    Returns:
        Sums, not means, so that batches can be added: ``correct``, ``cross_entropy``, ``count``.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    images = jnp.asarray(batch["image"])
    logits = state.apply_fn(variables, standardize(images) if standardize else images, train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    counts = batch["weight"] > 0
    # `where`, not a product: padding must not matter even where its loss is not finite.
    sums = {
        "correct": jnp.sum(counts & (jnp.argmax(logits, axis=-1) == batch["label"])),
        "cross_entropy": jnp.sum(jnp.where(counts, losses, 0.0)),
        "count": jnp.sum(counts),
    }
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def evaluate(
    step: Callable[[TrainState, Batch], Metrics],
    state: TrainState,
    batches: Iterable[Batch],
) -> dict[str, float]:
    """Evaluates a state on every image once.

    Args:
        step: ``eval_step``, jitted or compiled for the shape of the batches.
        state: State to evaluate.
        batches: Every image once, with ``weight`` 1, and padding, with ``weight`` 0.

    Returns:
        ``accuracy`` and ``cross_entropy`` (means over the images that count), ``correct``, and
        ``count``, their number.
    """
    sums = [step(state, batch) for batch in batches]
    total = jax.tree.map(lambda *leaves: sum(leaf.item() for leaf in leaves), *sums)
    return {
        "accuracy": total["correct"] / total["count"],
        "cross_entropy": total["cross_entropy"] / total["count"],
        "correct": total["correct"],
        "count": total["count"],
    }
