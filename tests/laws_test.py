"""Laws every layer of `layers.py` obeys on one device; for several see `device_laws_test.py`."""

import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.layers import LAYERS, averages, parametrize
from tests.oracle import assert_close

each_layer = parametrize(LAYERS)
with_statistics = parametrize([layer for layer in LAYERS if layer.statistics])
differentiable = parametrize([layer for layer in LAYERS if not layer.stops_gradients])
ROUNDING = 3e-6  # float32, relative to the largest entry


def assert_trees_close(actual, desired, tol=ROUNDING):
    jax.tree.map(functools.partial(assert_close, tol=tol), actual, desired)


@each_layer
def test_jit(layer):
    args = layer.variables(), layer.inputs()
    assert_trees_close(layer.jitted(*args), layer.apply(*args))


@each_layer
def test_compiles_once(layer):
    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(variables, x):
        y, updated = layer.apply(variables, x)
        return y, {**variables, **updated}

    variables = layer.variables()
    for seed in range(3):
        _, variables = step(variables, layer.inputs(seed))


@with_statistics
def test_training_steps_in_a_scan(layer):
    variables = layer.variables()
    xs = jnp.stack([layer.inputs(seed) for seed in range(3)])

    def step(stats, x):
        y, updated = layer.jitted({**variables, **stats}, x)
        return updated, y

    stats = averages(variables)
    scanned = jax.lax.scan(step, stats, xs)
    ys = []
    for x in xs:
        stats, y = step(stats, x)
        ys.append(y)
    assert_trees_close(scanned, (stats, jnp.stack(ys)))


@each_layer
def test_vmap_over_independent_replicas(layer):
    replicas = [(layer.variables(seed), layer.inputs(seed)) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *replicas)
    mapped = jax.jit(jax.vmap(layer.apply))(*stacked)
    for i, replica in enumerate(replicas):
        assert_trees_close(jax.tree.map(lambda leaf, i=i: leaf[i], mapped), layer.jitted(*replica))


@each_layer
def test_inference_keeps_samples_apart_and_averages_still(layer):
    variables, x = layer.variables(), layer.inputs()
    module = layer.make(**layer.mode(train=False))
    y, updated = module.apply(variables, x, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, updated, averages(variables))
    assert_close(y, layer.infer(variables, x), 0.0)
    alone = jnp.concatenate([layer.infer(variables, x[i : i + 1]) for i in range(len(x))])
    assert_close(alone, y, ROUNDING)


@with_statistics
def test_inference_follows_the_averages(layer):
    variables, x = layer.variables(), layer.inputs()
    moved = jax.tree.map(lambda leaf: leaf + 0.5, variables["batch_stats"])
    y = layer.infer(variables, x)
    assert np.abs(layer.infer({**variables, "batch_stats": moved}, x) - y).max() > 1e-2


@each_layer
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_half_precision(layer, dtype, train):
    variables, x = layer.variables(), layer.inputs().astype(dtype)

    def run(x, dtype):
        if train:
            return layer.apply(variables, x, dtype=dtype)
        return layer.infer(variables, x, dtype=dtype), {}

    y, updated = run(x, dtype)
    expected, stats = run(x.astype(jnp.float32), None)
    assert y.dtype == dtype
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updated))
    # Statistics and normalization are computed in float32: only y is rounded.
    assert_trees_close(updated, stats)
    rtol = 2 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(y.astype(np.float32), expected, rtol=rtol, atol=layer.half_atol)


@each_layer
def test_float64(layer, x64):
    variables = jax.tree.map(lambda leaf: leaf.astype(float), layer.variables())
    x = layer.inputs().astype(float)
    y, _ = layer.jitted(variables, x)
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), (variables, x))
    assert y.dtype == np.float64
    assert_close(y, layer.jitted(*single)[0], 1e-5)
    # Computed in float64 throughout: a step of 1e-12 is seen in y.
    moved = x.at[(0,) * x.ndim].add(1e-11)
    assert np.abs(layer.jitted(variables, moved)[0] - y).max() > 1e-13


@each_layer
def test_remat(layer):
    args = layer.variables(), layer.inputs()
    dy = layer.inputs(9)

    def grads(apply):
        return jax.jit(jax.grad(lambda *args: jnp.sum(apply(*args)[0] * dy), argnums=(0, 1)))(*args)

    assert_trees_close(grads(jax.checkpoint(layer.apply)), grads(layer.apply), 1e-5)


@differentiable
def test_jvp_is_the_derivative_and_agrees_with_vjp(layer, x64):
    variables, x = jax.tree.map(lambda a: a.astype(float), (layer.variables(), layer.inputs()))

    @jax.jit
    def run(params, x):
        return layer.apply({**variables, "params": params}, x)

    args = (variables.get("params", {}), x)
    leaves, tree = jax.tree.flatten(args)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    direction = jax.tree.unflatten(
        tree, [jax.random.normal(k, v.shape) for k, v in zip(keys, leaves, strict=True)]
    )
    out, tangent = jax.jvp(run, args, direction)

    h = 1e-5
    plus, minus = (
        run(*jax.tree.map(lambda a, d, s=s: a + s * h * d, args, direction)) for s in (1, -1)
    )
    central = jax.tree.map(lambda a, b: (a - b) / (2 * h), plus, minus)
    assert_trees_close(tangent, central, 1e-7)

    cotangent = jax.tree.map(lambda a: jax.random.normal(jax.random.key(4), a.shape), out)
    pulled = jax.vjp(run, *args)[1](cotangent)
    dot = functools.partial(jax.tree.reduce, lambda total, a: total + a, initializer=0.0)
    left = dot(jax.tree.map(jnp.vdot, pulled, direction))
    right = dot(jax.tree.map(jnp.vdot, cotangent, tangent))
    np.testing.assert_allclose(left, right, rtol=1e-10)


@each_layer
def test_initialisation(layer):
    """Shapes alone suffice; no mapped axis is needed; the averages stay at their start."""
    module = layer.make(axis_name="batch") if layer.collective else layer.make()
    args = jax.random.key(0), 3 + layer.inputs()
    init, infer = (functools.partial(module.init, **layer.mode(train)) for train in (True, False))
    variables = init(*args)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(init, *args))
    assert jax.tree.map(jnp.shape, variables) == shapes
    jax.tree.map(np.testing.assert_array_equal, variables, infer(*args))
    for path, leaf in jax.tree_util.tree_leaves_with_path(averages(variables)):
        np.testing.assert_array_equal(leaf, float(path[-1].key == "var"))


class Stack(nn.Module):
    """The layer inside a network that is scanned, mapped or rematerialised."""

    layer: nn.Module
    mode: Any

    @nn.compact
    def __call__(self, x, _=None):
        return self.layer(x, **self.mode), None


LIFTED = {
    "scan": functools.partial(
        nn.scan,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        length=2,
    ),
    "vmap": functools.partial(
        nn.vmap,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        in_axes=None,
        axis_size=2,
    ),
    "remat": nn.remat,
}


@each_layer
@pytest.mark.parametrize("lift", LIFTED)
def test_lifted_modules(layer, lift):
    module, x = LIFTED[lift](Stack)(layer.make(), layer.mode(train=True)), layer.inputs()
    variables = jax.jit(module.init)(jax.random.key(0), x)
    (y, _), updated = jax.jit(functools.partial(module.apply, mutable=["batch_stats"]))(
        variables, x
    )
    inner = {kind: tree["layer"] for kind, tree in variables.items()}
    if lift == "remat":
        expected, stats = layer.jitted(inner, x)
    else:
        expected, stats, out = x, [], []
        for i in range(2):
            replica = jax.tree.map(lambda leaf, i=i: leaf[i], inner)
            y_i, stats_i = layer.jitted(replica, expected if lift == "scan" else x)
            expected = y_i
            out.append(y_i)
            stats.append(stats_i)
        stats = jax.tree.map(lambda *leaves: jnp.stack(leaves), *stats)
        expected = expected if lift == "scan" else jnp.stack(out)
    assert_close(y, expected, 1e-5)
    actual = {kind: tree["layer"] for kind, tree in updated.items()}
    assert_trees_close(actual, stats, 1e-5)
