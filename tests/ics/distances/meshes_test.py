"""Every public function on arrays of any placement, and what it costs to call it twice."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.compilations import count_compilations
from tests.ics.catalogue import BOUNDS
from unitnorm_jax import ics

MESHES = {
    kind: jax.make_mesh(
        (4,), ("i",), axis_types=(getattr(AxisType, kind),), devices=jax.devices()[:4]
    )
    for kind in ("Explicit", "Auto")
}
EVERY = BOUNDS | {
    "spread": lambda x, y: ics.spread(x),
    "relative": lambda x, y: ics.relative(ics.em_distance(x, y, method="pairing"), x),
}


def samples():
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    return x, x + np.float32([[0.5, 0, 0, 0]])


def placed(kind, spec):
    sharding = NamedSharding(MESHES[kind], PartitionSpec(*spec))
    return [jax.device_put(z, sharding) for z in samples()]


# The others are in `measure`, too.
SOME = ("measure", "em_distance, pairing", "sliced_em_distance", "relative", "mean_lower_bound")


def every(x, y):
    return {name: function(x, y) for name, function in EVERY.items()}


def some(x, y):
    return {name: EVERY[name](x, y) for name in SOME}


@pytest.fixture(scope="module")
def expected():
    return jax.tree.map(np.asarray, jax.jit(some)(*samples()))


@pytest.mark.parametrize("kind", MESHES)
@pytest.mark.parametrize("spec", [("i",), (None, "i"), ()])
@pytest.mark.parametrize("within", [False, True])
def test_every_function_can_be_traced_wherever_the_arrays_lie(kind, spec, within):
    x, y = placed(kind, spec)
    if within:
        with jax.set_mesh(MESHES[kind]):
            jax.jit(every).trace(x, y)
            jax.jit(every).trace(*samples())
    else:
        jax.jit(every).trace(x, y)


@pytest.mark.parametrize("kind", ["Auto", pytest.param("Explicit", marks=pytest.mark.slow)])
def test_sharded_samples_give_the_same(kind, expected):
    x, y = placed(kind, ("i",))
    found = jax.tree.map(np.asarray, jax.jit(some)(x, y))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def test_eager_calls_on_an_explicit_mesh(expected):
    x, y = placed("Explicit", ("i",))
    for name, key in {"em_distance, pairing": "lower", "mean_lower_bound": ""}.items():
        lower, upper = BOUNDS[name](x, y)
        with jax.set_mesh(MESHES["Explicit"]):
            again = BOUNDS[name](*samples())
        for found in ({**upper, **lower}, {**again[1], **again[0]}):
            np.testing.assert_allclose(
                found[key], {**expected[name][1], **expected[name][0]}[key], rtol=1e-5
            )


def test_masks_and_weights_on_an_explicit_mesh():
    x, y = placed("Explicit", ("i",))
    mask = jax.device_put(np.arange(8) < 5, NamedSharding(MESHES["Explicit"], PartitionSpec("i")))
    distance = ics.em_distance(x, y, mask, mask)
    assert float(distance.value) == pytest.approx(0.5, rel=1e-6)
    assert bool(distance.exact)


@pytest.mark.parametrize("name", ["auto", "sinkhorn", "pairing", "measure", "weights", "far"])
def test_inside_of_shard_map_with_its_check(name):
    """The constants of branches and loops vary over the axes, as all the rest does."""
    x, y = samples()

    def distance(x, y):
        if name == "measure":
            m = ics.measure(x, y)
            return jnp.stack([m.distance.value, *m.lower.values(), *m.upper.values()])[None]
        if name == "weights":
            return ics.em_distance(x, y[:1], jnp.arange(2) + 1).value[None]
        if name == "far":
            return ics.em_distance(x, y[::-1]).value[None]
        return ics.em_distance(x, y, method=name).value[None]

    mesh = MESHES["Auto"]
    spec = PartitionSpec("i")
    mapped = jax.shard_map(distance, mesh=mesh, in_specs=spec, out_specs=spec)
    found = np.asarray(jax.jit(mapped)(*placed("Auto", ("i",))))
    for i in range(4):
        np.testing.assert_allclose(
            found[i], distance(x[2 * i : 2 * i + 2], y[2 * i : 2 * i + 2])[0], rtol=1e-5, atol=1e-6
        )


# float64: what JAX narrows
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_a_second_call_compiles_nothing(dtype):
    x, y = (z.astype(dtype) + (1e-9 if dtype == np.float64 else 0) for z in samples())
    names = [name for name in EVERY if name != "em_distance, sinkhorn"]
    for name in names:
        jax.block_until_ready(EVERY[name](x, y))
    with count_compilations() as count:
        for name in names:
            jax.block_until_ready(EVERY[name](x + 1, y))
    assert not count


def test_the_count_counts():
    with count_compilations() as count:
        jax.jit(lambda x: x * 3 + 17).lower(jnp.ones(3)).compile()
    assert count


def test_one_trace_for_all_samples_of_a_shape():
    traced = jax.jit(chex.assert_max_traces(ics.mean_lower_bound, n=1))
    x, y = samples()
    for shift in range(2):
        traced(x + shift, y)
