"""Laws across devices: eight shards with `axis_name` are one device with the whole batch."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.layers import LAYERS, parametrize
from tests.oracle import assert_close

AXIS = "batch"


each_layer = parametrize(LAYERS)
collective = parametrize([layer for layer in LAYERS if layer.collective])


def axis_name(layer):
    """The field that makes it one layer on all devices; others need none."""
    return {"axis_name": AXIS} if layer.collective else {}


def mesh():
    # jax.make_mesh makes Explicit axes by default, in which shardings are types.
    return jax.make_mesh((8,), (AXIS,), axis_types=(AxisType.Auto,))


def shard(a):
    return a.reshape(8, a.shape[0] // 8, *a.shape[1:])


def unshard(a):
    return a.reshape(-1, *a.shape[2:])


def with_pmap(apply):
    mapped = jax.pmap(apply, AXIS, in_axes=(None, 0), out_axes=(0, None))

    def run(variables, x):
        y, updated = mapped(variables, shard(x))
        return unshard(y), updated

    return run


def with_shard_map(apply):
    return jax.shard_map(apply, mesh=mesh(), in_specs=(P(), P(AXIS)), out_specs=(P(AXIS), P()))


def outputs_and_gradients(run, variables, x, dy):
    """Output, averages, and gradients with respect to parameters, averages and input."""

    def loss(variables, x):
        y, updated = run(variables, x)
        moved = sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(updated))
        return jnp.sum(y * dy) + moved, (y, updated)

    grads, out = jax.grad(loss, argnums=(0, 1), has_aux=True)(variables, x)
    return *out, grads


@each_layer
@pytest.mark.parametrize(
    "mapped", [pytest.param(with_pmap, marks=pytest.mark.slow), with_shard_map]
)
def test_named_axis(layer, mapped):
    args = layer.variables(), layer.inputs(), layer.inputs(9)
    run = mapped(functools.partial(layer.apply, **axis_name(layer)))
    actual = jax.jit(functools.partial(outputs_and_gradients, run))(*args)
    expected = jax.jit(functools.partial(outputs_and_gradients, layer.apply))(*args)
    jax.tree.map(functools.partial(assert_close, tol=1e-5), actual, expected)


@each_layer
def test_gradient_inside_shard_map(layer):
    """As users train: the loss's mean taken inside the differentiated function."""
    variables, x, dy = layer.variables(), layer.inputs(), layer.inputs(9)

    def grads(mean, variables, x, dy, **fields):
        def loss(params):
            y, _ = layer.apply({**variables, "params": params}, x, **fields)
            return mean(jnp.mean(y * dy))

        return jax.grad(loss)(variables.get("params", {}))

    inside = functools.partial(grads, lambda a: jax.lax.pmean(a, AXIS), **axis_name(layer))
    specs = P(), P(AXIS), P(AXIS)
    actual = jax.jit(jax.shard_map(inside, mesh=mesh(), in_specs=specs, out_specs=P()))
    expected = jax.jit(functools.partial(grads, lambda a: a))(variables, x, dy)
    jax.tree.map(functools.partial(assert_close, tol=1e-5), actual(variables, x, dy), expected)


@each_layer
def test_named_sharding(layer):
    """No axis name: `jit` alone over arrays that are spread over the devices."""
    args = layer.variables(), layer.inputs(), layer.inputs(9)
    run = jax.jit(functools.partial(outputs_and_gradients, layer.apply))
    expected = run(*args)
    split, whole = NamedSharding(mesh(), P(AXIS)), NamedSharding(mesh(), P())
    spread = jax.device_put(args, (whole, split, split))
    actual = run(*spread)
    assert actual[0].sharding.num_devices == 8
    jax.tree.map(functools.partial(assert_close, tol=1e-5), actual, expected)


@collective
def test_axis_index_groups(layer):
    variables, x = layer.variables(), layer.inputs()
    groups = [[0, 1, 4, 5], [2, 3, 6, 7]]
    apply = functools.partial(layer.apply, axis_name=AXIS, axis_index_groups=groups)
    y, updated = jax.pmap(apply, AXIS, in_axes=(None, 0))(variables, shard(x))
    for group in map(jnp.array, groups):
        y_group, averages = layer.jitted(variables, unshard(shard(x)[group]))
        assert_close(unshard(y[group]), y_group, 1e-5)
        for device in group:
            jax.tree.map(
                lambda a, b, device=device: assert_close(a[device], b, 1e-5), updated, averages
            )
