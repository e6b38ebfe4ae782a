"""Training and evaluation steps."""

import functools
from functools import partial
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import methods, models
from experiments.data.augment import random_shift
from experiments.training import steps

IMAGES = np.asarray(jax.random.normal(jax.random.key(7), (12, 8, 8, 1)))
LABELS = np.arange(12, dtype=np.int32) % 10


@functools.cache
def make_state(norm="ubn", axis_name=None):
    method = methods.make_method(norm, methods.NormConfig(slice_size=3), methods.Context(axis_name))
    model = (method.network or models.PreActResNet)(blocks=(0,), widths=(4,), norm=method.norm)
    tx = optax.sgd(0.1, momentum=0.9, nesterov=True)
    init = jax.jit(partial(steps.create_state, model=model, tx=tx))
    return init(jax.random.key(0), IMAGES)


def test_logits_that_are_nan_are_right_about_nothing():
    """argmax takes a NaN for the largest: class 0 would win."""
    logits = jnp.array([[jnp.nan, 0.0], [0.0, jnp.nan], [jnp.nan, jnp.nan], [1.0, 0.0]])
    assert steps.predicted(logits).tolist() == [-1, -1, -1, 0]
    state = SimpleNamespace(
        params={}, batch_stats={}, apply_fn=lambda variables, images, train: logits
    )
    batch = {"image": np.zeros((4, 1)), "label": np.zeros(4, int), "weight": np.ones(4)}
    found = steps.evaluate(steps.eval_step, state, [batch])
    assert (found["correct"], found["not_finite"], found["count"]) == (1, 3, 4)


def test_penalty_is_the_sum_of_squared_kernels():
    params = {"a": {"kernel": jnp.array([1.0, 2.0]), "bias": jnp.array([9.0])}}
    params["b"] = {"kernel": jnp.array([[3.0]]), "scale": jnp.ones(3), "alpha": jnp.ones(3)}
    assert steps.kernel_penalty(params) == 14.0


def test_step_learns_and_updates_statistics():
    state = make_state()
    start = state
    step = jax.jit(partial(steps.train_step, weight_penalty=1e-3))
    losses = []
    for _ in range(40):
        state, metrics = step(state, {"image": IMAGES, "label": LABELS})
        losses.append(metrics["loss"].item())
    assert losses[-1] < 0.8 * losses[0]
    assert int(state.step) == 40
    penalty = 1e-3 * steps.kernel_penalty(start.params)
    first = step(start, {"image": IMAGES, "label": LABELS})[1]
    np.testing.assert_allclose(first["loss"] - first["cross_entropy"], penalty, rtol=1e-4)
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), start.batch_stats, state.batch_stats)
    assert all(jax.tree.leaves(changed))
    assert np.any(np.asarray(state.params["head_norm"]["alpha"]) != 0)


def test_step_compiles_once():
    step = jax.jit(chex.assert_max_traces(steps.train_step, n=1))
    state = make_state()
    for _ in range(3):
        state, _ = step(state, {"image": IMAGES, "label": LABELS})


def test_augmentation_changes_with_the_step_and_the_key():
    seen = []

    def apply_fn(variables, images, train, mutable, rngs):
        jax.debug.callback(lambda x: seen.append(np.array(x)), images)
        return jnp.zeros((len(images), 10)), {}

    state = make_state().replace(apply_fn=apply_fn)
    batch = {"image": IMAGES, "label": LABELS}
    later = state.replace(step=1)
    other = state.replace(key=jax.random.key(99))
    for variant in (state, state, later, other):
        steps.train_step(variant, batch, augment=partial(random_shift, max_shift=2))
        jax.effects_barrier()
    first, again, later_images, other_images = seen
    np.testing.assert_array_equal(first, again)
    assert np.any(first != later_images)
    assert np.any(first != other_images)


SHARDS = 4


def by_vmap(step, state, batch):
    split = jax.tree.map(lambda x: x.reshape(SHARDS, -1, *x.shape[1:]), batch)
    return jax.jit(jax.vmap(step, in_axes=(None, 0), axis_name="shards"))(state, split)


def by_pmap(step, state, batch):
    split = jax.tree.map(lambda x: x.reshape(SHARDS, -1, *x.shape[1:]), batch)
    devices = jax.devices()[:SHARDS]
    return jax.pmap(step, "shards", in_axes=(None, 0), devices=devices)(state, split)


def by_shard_map(step, state, batch):
    mesh = jax.make_mesh(
        (SHARDS,),
        ("shards",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:SHARDS],
    )
    one, split = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("shards")
    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(one, split), out_specs=one))(
        state, batch
    )


@pytest.mark.parametrize("norm", ["bn", "ubn", "kalman"])
@pytest.mark.parametrize("transform", [by_vmap, by_pmap, by_shard_map])
def test_split_batch_is_the_whole_batch(transform, norm):
    """Shards, averaged over a mapped axis, make the same update as one batch."""
    batch = {"image": IMAGES, "label": LABELS}
    whole, whole_metrics = jax.jit(steps.train_step)(make_state(norm), batch)
    step = partial(steps.train_step, axis_name="shards")
    split, metrics = transform(step, make_state(norm, axis_name="shards"), batch)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, np.broadcast_to(b, a.shape), atol=2e-6),
        (split.params, split.batch_stats, metrics),
        (whole.params, whole.batch_stats, whole_metrics),
    )


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_evaluation_counts_every_image_once(batch_size):
    state = make_state()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits = np.asarray(state.apply_fn(variables, IMAGES, train=False), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    batches = steps.eval_batches(IMAGES, LABELS, batch_size)
    found = steps.evaluate(jax.jit(steps.eval_step), state, batches)
    assert found["count"] == 12
    assert found["correct"] == (logits.argmax(axis=1) == LABELS).sum()
    assert found["accuracy"] == found["correct"] / 12
    np.testing.assert_allclose(found["cross_entropy"], -log_p[range(12), LABELS].mean(), rtol=1e-5)


def test_padding_does_not_matter():
    batch = next(steps.eval_batches(IMAGES, LABELS, 16))
    assert batch["weight"].tolist() == [1.0] * 12 + [0.0] * 4
    clean = steps.eval_step(make_state(), batch)
    batch["image"][12:] = np.nan
    poisoned = steps.eval_step(make_state(), batch)
    jax.tree.map(np.testing.assert_array_equal, clean, poisoned)
