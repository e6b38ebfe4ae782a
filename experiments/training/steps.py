"""Training and evaluation steps: pure functions of a state and a batch, for any transform."""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

from experiments.data.augment import Part
from experiments.data.pipeline import Batch as Batch
from experiments.data.pipeline import eval_batches as eval_batches

Metrics = dict[str, jax.Array]
Augment = Callable[..., jax.Array]
AxisName = str | tuple[str, ...] | None
STREAMS = ("dropout", "kalman")  # Random numbers that networks may ask for in training.


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
    apply_fn: Callable[..., Any] | None = None,
) -> TrainState:
    """Return the initial state of ``model``; ``jit`` with ``model`` and ``tx`` bound.

    Args:
        key: Random key of the run: initial weights and augmentation follow from it.
        images: A batch, ``(n, h, w, c)``; only its shape and dtype matter.
        model: Network with ``__call__(x, train)``.
        tx: Optimizer.
        apply_fn: What the steps call; default: ``model.apply``.
    """
    init_key, state_key = jax.random.split(key)
    variables = model.init(init_key, images, train=False)
    return TrainState.create(
        apply_fn=apply_fn or model.apply,
        params=variables["params"],
        tx=tx,
        batch_stats=variables.get("batch_stats", {}),
        key=state_key,
    )


def kernel_penalty(params: Any) -> jax.Array:
    """Return the sum of squares of all kernels; scale, bias and alpha are left out."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [leaf for path, leaf in leaves if path[-1].key == "kernel"]
    return sum((jnp.sum(jnp.square(kernel)) for kernel in kernels), start=jnp.zeros(()))


def update_key(key: jax.Array, step: jax.Array | int) -> jax.Array:
    """Return the random key of the update after ``step`` others, that of the whole batch.

    Args:
        key: Key of the state.
        step: Updates done before.
    """
    return jax.random.fold_in(key, step)


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    weight_penalty: float = 0.0,
    label_smoothing: float = 0.0,
    augment: Augment | None = None,
    accumulate: int = 1,
    axis_name: AxisName = None,
    after_update: Callable[[TrainState], TrainState] | None = None,
    penalty: Callable[[Any], jax.Array] | None = None,
) -> tuple[TrainState, Metrics]:
    """Return one update on one batch, the same under every transform.

    loss = mean cross-entropy + ``weight_penalty`` * sum of squared kernels (+ ``penalty``).

    With ``accumulate`` = k the batch of each device is taken in k micro-batches, one after the
    other, and the mean of their gradients makes the update: the memory of a k-th of the batch, and
    without batch statistics the same result. Batch statistics are each micro-batch's own (of all
    devices that share statistics), and the running ones are updated k times, as by k forward
    passes: the "ghost batches" of Hoffer et al. (2017), https://arxiv.org/abs/1705.08741.

    Args:
        state: State before the update.
        batch: ``image`` ``(n, h, w, c)`` and ``label`` ``(n,)``.
        weight_penalty: Factor of the sum of squared kernels (there is no factor 1/2).
        label_smoothing: Share of each label spread over all classes, in [0, 1).
        augment: Maps a random key and images to the network's input; None is the identity. With
            an ``axis_name`` it is also given ``part``: which part of the batch the images are.
        accumulate: Number of micro-batches; image i of a device is in micro-batch i % k.
        axis_name: Mapped axis (or axes) over which the batch is split, None where it is not. The
            network's norm needs the same name to use the statistics of the whole batch.
        after_update: Maps the state after the update to the one that is returned.
        penalty: A further term of the loss: maps the parameters to a scalar.

    Returns:
        State after the update, and scalars of the batch before it: ``loss``, ``cross_entropy``,
        ``accuracy`` and ``grad_norm``.

    Raises:
        ValueError: If ``accumulate`` does not divide the number of images of a device.
    """
    images = jnp.asarray(batch["image"])
    key = update_key(state.key, state.step)
    if augment is not None:
        # Random numbers are drawn for the whole batch: each image has its own on any device.
        part = {"part": _part(axis_name)} if axis_name else {}
        images = augment(key, images, **part)
    if axis_name is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    labels = jnp.asarray(batch["label"])

    def loss_fn(
        params: Any, batch_stats: Any, images: jax.Array, labels: jax.Array, number: Any = 0
    ) -> tuple[jax.Array, tuple[Metrics, Any]]:
        logits, updated = state.apply_fn(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs=_streams(key, number),
        )
        losses = _cross_entropy(logits, labels, label_smoothing)
        cross_entropy = jnp.mean(losses)
        loss = cross_entropy + weight_penalty * kernel_penalty(params)
        if penalty is not None:
            loss = loss + penalty(params)
        accuracy = jnp.mean(predicted(logits) == labels)
        metrics = {"loss": loss, "cross_entropy": cross_entropy, "accuracy": accuracy}
        return loss, (metrics, updated.get("batch_stats", {}))

    # Each device takes the gradient of its own loss, and one mean makes them the batch's.
    params, batch_stats = _own(images, (state.params, state.batch_stats))
    gradient = jax.grad(loss_fn, has_aux=True)
    if accumulate == 1:
        grads, (metrics, batch_stats) = gradient(params, batch_stats, images, labels)
    else:

        def add_micro_batch(carry: Any, micro_batch: Any) -> Any:
            total, batch_stats = carry
            grads, (metrics, batch_stats) = gradient(params, batch_stats, *micro_batch)
            return (optax.tree.add(total, grads), _own(images, batch_stats)), metrics

        zeros = _own(images, jax.tree.map(jnp.zeros_like, params))
        (total, batch_stats), rows = jax.lax.scan(
            add_micro_batch,
            (zeros, batch_stats),
            (*_micro_batches((images, labels), accumulate), jnp.arange(accumulate)),
        )
        grads = jax.tree.map(lambda x: x / accumulate, total)
        metrics = jax.tree.map(jnp.mean, rows)
    if axis_name is not None:
        own = _own(images, (grads, batch_stats, metrics))
        grads, batch_stats, metrics = jax.lax.pmean(own, axis_name)
    metrics["grad_norm"] = optax.tree.norm(grads)
    state = state.apply_gradients(grads=grads, batch_stats=batch_stats)
    return (after_update(state) if after_update else state), metrics


def _streams(key: jax.Array, micro_batch: Any) -> dict[str, jax.Array]:
    """Keys of what a network draws in training, another for each part of a batch."""
    key = jax.random.fold_in(key, micro_batch)
    return {name: jax.random.fold_in(key, i) for i, name in enumerate(STREAMS)}


def _part(axis_name: AxisName) -> Part:
    return Part(jax.lax.axis_index(axis_name), jax.lax.axis_size(axis_name))


def _cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of each image, in at least float32."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if smoothing == 0:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


def _own(split: jax.Array, tree: Any) -> Any:
    """Return ``tree`` marked as different on every device that has another part of ``split``.

    Under ``shard_map`` JAX tracks what is equal on all devices, and sums gradients of such
    parameters by itself, for every micro-batch again. Elsewhere this changes nothing.
    """
    axes = jax.typeof(split).manual_axis_type.varying

    def mark(x: jax.Array) -> jax.Array:
        missing = tuple(axes - jax.typeof(x).manual_axis_type.varying)
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(mark, tree)


def _micro_batches(tree: Any, count: int) -> Any:
    """Split the leading axis: n -> (count, n / count)."""

    def split(x: jax.Array) -> jax.Array:
        if len(x) % count != 0:
            raise ValueError(
                f"`accumulate` (={count}) must divide the number of images of a device: {len(x)}."
            )
        # Neighbours go to different micro-batches, so that no image has to change its device.
        return jnp.moveaxis(x.reshape(len(x) // count, count, *x.shape[1:]), 1, 0)

    return jax.tree.map(split, tree)


def predicted(logits: jax.Array) -> jax.Array:
    """Return the class with the largest logit; -1, which is none, where a logit is NaN.

    (To ``argmax`` a NaN is larger than all numbers: a network whose logits are NaN would be right
    about every image of class 0.)
    """
    return jnp.where(jnp.isnan(logits).any(-1), -1, jnp.argmax(logits, axis=-1))


def eval_step(
    state: TrainState,
    batch: Batch,
    *,
    standardize: Callable[[jax.Array], jax.Array] | None = None,
    axis_name: AxisName = None,
) -> Metrics:
    """Evaluate one batch with the running statistics.

    Args:
        state: State to evaluate.
        batch: ``image`` ``(n, h, w, c)``, ``label`` ``(n,)`` and ``weight`` ``(n,)``: 1 for an
            image that counts, 0 for padding.
        standardize: Maps the batch's images to the network's input; None is the identity.
        axis_name: Mapped axis (or axes) over which the batch is split, None where it is not.

    Returns:
        Sums, not means, so that batches can be added: ``correct``, ``cross_entropy``, ``count``,
        and ``not_finite``, the number of images with a NaN among their logits.
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    images = jnp.asarray(batch["image"])
    logits = state.apply_fn(variables, standardize(images) if standardize else images, train=False)
    losses = _cross_entropy(logits, jnp.asarray(batch["label"]))
    counts = batch["weight"] > 0
    # `where`, not a product: padding must not matter even where its loss is not finite.
    sums = {
        "correct": jnp.sum(counts & (predicted(logits) == batch["label"])),
        "not_finite": jnp.sum(counts & jnp.isnan(logits).any(-1)),
        "cross_entropy": jnp.sum(jnp.where(counts, losses, 0.0)),
        "count": jnp.sum(counts),
    }
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def evaluate(
    step: Callable[[TrainState, Batch], Metrics],
    state: TrainState,
    batches: Iterable[Batch],
) -> dict[str, float]:
    """Evaluate a state on every image once.

    Args:
        step: ``eval_step``, jitted or compiled for the shape of the batches.
        state: State to evaluate.
        batches: Every image once, with ``weight`` 1, and padding, with ``weight`` 0.

    Returns:
        ``accuracy`` and ``cross_entropy`` (means over the images that count), ``correct``,
        ``count``, their number, and ``not_finite``, the number of those whose logits are NaN.
    """
    sums = [step(state, batch) for batch in batches]
    total = jax.tree.map(lambda *leaves: sum(leaf.item() for leaf in leaves), *sums)
    return {
        "accuracy": total["correct"] / total["count"],
        "cross_entropy": total["cross_entropy"] / total["count"],
        "correct": total["correct"],
        "count": total["count"],
        "not_finite": total["not_finite"],
    }
