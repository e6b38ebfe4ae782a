"""The nnx layer under what nnx and JAX do with modules."""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export
from jax.sharding import PartitionSpec

from tests.compilations import count_compilations
from tests.oracle import assert_close
from unitnorm_jax.nnx import UnitizedBatchNorm

C = 4
X = 2 + jax.random.normal(jax.random.key(0), (16, 3, C))


def layer(key=0, **options):
    options = {"unit": "rms", "alpha_init": nnx.initializers.constant(0.5)} | options
    return UnitizedBatchNorm(C, rngs=nnx.Rngs(key), **options)


def result(made, x=X):
    """The output of a step in training, and the state after it."""
    y = made(x)
    return y, nnx.to_pure_dict(nnx.state(made))


def assert_same(actual, desired, tol=1e-6):
    jax.tree.map(functools.partial(assert_close, tol=tol), actual, desired)


@pytest.fixture(scope="module")
def expected():
    return result(layer())


def test_jit_and_remat(expected):
    made = layer()
    assert_same(
        (nnx.jit(lambda m, x: m(x))(made, X), result(made)[1]["alpha"]),
        (expected[0], 0.5 + jnp.zeros(C)),
    )
    made = layer()
    y = nnx.jit(nnx.remat(lambda m, x: m(x)))(made, X)
    assert_same((y, nnx.to_pure_dict(nnx.state(made))), expected)


def test_compiles_once(expected):
    made, traces = layer(), []

    @nnx.jit
    def step(made, x):
        traces.append(1)
        return made(x)

    for _ in range(3):
        step(made, X)
    assert len(traces) == 1
    with count_compilations() as compiled:
        layer()(X)  # eagerly: one program, which the first call of the tests has compiled
        layer()(X)
    assert not compiled


def test_grad():
    """Gradients of all parameters, and statistics that move beside them."""
    made = layer()

    def loss(made, x):
        return jnp.sum(made(x) ** 3)

    grads = nnx.jit(nnx.grad(loss))(made, X)
    assert set(nnx.to_pure_dict(grads)) == {"alpha", "bias", "scale"}
    h = 1e-2
    for name in ("alpha", "bias", "scale"):
        sums = []
        for step in (h, -h):
            moved = layer()
            getattr(moved, name)[...] += step
            sums.append(loss(moved, X))
        assert_close(grads[name][...].sum(), (sums[0] - sums[1]) / (2 * h), 1e-2)
    assert np.abs(made.mean[...]).min() > 0


def test_statistics_have_no_gradient():
    def loss(made, x):
        made(x)
        return jnp.sum(made.mean[...] ** 2 + made.var[...])

    assert np.all(jax.grad(lambda x: loss(layer(), x))(X) == 0)


def test_vmap_over_stacked_layers():
    keys = jax.random.split(jax.random.key(1), 3)
    random = nnx.initializers.normal()
    make = nnx.vmap(lambda key: layer(key, alpha_init=random, scale_init=random))
    stack = make(keys)
    assert stack.alpha.shape == (3, C)
    assert len({float(a) for a in stack.alpha[..., 0]}) == 3
    xs = jnp.stack([X, X + 1, 2 * X])
    one_by_one = [layer(key, alpha_init=random, scale_init=random) for key in keys]
    ys = jnp.stack([made(x) for made, x in zip(one_by_one, xs, strict=True)])
    assert_close(nnx.vmap(lambda m, x: m(x))(stack, xs), ys, 1e-6)
    for i, made in enumerate(one_by_one):
        assert_close(stack.mean[i], made.mean[...], 1e-6)


def test_scan_over_layers():
    make = nnx.vmap(layer)
    stack = make(jax.random.split(jax.random.key(1), 3))
    forward = nnx.scan(lambda x, m: (m(x), m.mean[...]), in_axes=(nnx.Carry, 0))
    y, means = nnx.jit(forward)(X, stack)
    x = X
    for i in range(3):
        made = layer()
        x = made(x)
        assert_close(means[i], made.mean[...], 1e-5)
        assert_close(stack.var[i], made.var[...], 1e-5)
    assert_close(y, x, 1e-5)


def test_one_example_per_call(expected):
    """A vmap over examples, with the layer's Variables outside of it."""
    made = layer(axis_name="batch", sample_axis=None)
    mapped = nnx.vmap(lambda m, x: m(x), in_axes=(None, 0), axis_name="batch")
    assert_same((mapped(made, X), nnx.to_pure_dict(nnx.state(made))), expected)


def test_pmap(expected):
    made = layer(axis_name="batch")
    step = nnx.pmap(lambda m, x: m(x), in_axes=(None, 0), axis_name="batch")
    y = step(made, X.reshape(8, 2, *X.shape[1:])).reshape(X.shape)
    assert_same((y, nnx.to_pure_dict(nnx.state(made))), expected)


def test_variables_that_are_references(expected):
    """Under JAX's own transformations they are updated in place."""
    with nnx.var_defaults(ref=True):
        made = layer()
        y = jax.jit(lambda m, x: m(x))(made, X)
    assert_close(y, expected[0], 1e-6)
    assert_close(made.mean[...], expected[1]["mean"], 1e-6)


@pytest.fixture
def mesh():
    return jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))


def test_shard_map(expected, mesh):
    made = layer(axis_name="batch")
    split = PartitionSpec("batch")
    state = nnx.StateSharding({...: PartitionSpec()})
    step = nnx.shard_map(lambda m, x: m(x), mesh=mesh, in_specs=(state, split), out_specs=split)
    assert_same((nnx.jit(step)(made, X), nnx.to_pure_dict(nnx.state(made))), expected)


def test_parameters_and_inputs_with_shardings(expected, mesh):
    """Under jit with a sharded batch statistics are those of the global batch."""
    metadata = {f"{n}_metadata": {"out_sharding": (None,)} for n in ("alpha", "scale", "bias")}
    with jax.set_mesh(mesh):
        made = nnx.jit(lambda: layer(**metadata))()
        assert made.alpha.get_metadata("out_sharding") == (None,)
        x = jax.device_put(X, jax.NamedSharding(mesh, PartitionSpec("batch")))
        y = nnx.jit(lambda m, x: m(x))(made, x)
        assert not y.sharding.is_fully_replicated
    assert_same((y, nnx.to_pure_dict(nnx.state(made))), expected)


def test_sharded_alpha(mesh):
    with jax.set_mesh(mesh):
        made = UnitizedBatchNorm(8, alpha_metadata={"out_sharding": ("batch",)}, rngs=nnx.Rngs(0))
        assert made.alpha[...].sharding.spec == PartitionSpec("batch")
        abstract = nnx.get_abstract_model(lambda: made, mesh)[1]
    assert abstract["alpha"].get_value().sharding.spec == PartitionSpec("batch")


def test_copies(expected):
    """Split and merged, cloned, copied and pickled: each computes what the first does."""
    made = layer()
    graph, state = nnx.split(made)
    copies = [
        nnx.merge(graph, state, copy=True),
        nnx.clone(made),
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
    ]
    for other in copies:
        assert type(other) is UnitizedBatchNorm
        assert_same(result(other), expected, 0.0)
    assert np.all(made.mean[...] == 0)
    assert nnx.graphdef(copies[0]) == graph
    assert hash(graph) == hash(nnx.graphdef(layer()))
    assert graph != nnx.graphdef(layer(unit="sample"))
    assert hash(nnx.graphdef(layer(sample_axis=[0, 1]))) == hash(
        nnx.graphdef(layer(sample_axis=(0, 1)))
    )


def test_eval_shape():
    abstract = nnx.eval_shape(layer)
    assert abstract.alpha.get_value() == jax.ShapeDtypeStruct((C,), jnp.float32)


def test_display(capsys):
    made = layer()
    nnx.display(made)
    shown = capsys.readouterr().out + repr(made)
    assert "UnitizedBatchNorm(" in shown
    assert "alpha=Param(" in shown
    assert "unit='rms'" in shown


@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_export_with_symbolic_sizes(train):
    """Written, read back, and called at sizes of its own."""

    def run(arrays, x):
        made = layer(use_running_average=not train)
        nnx.update(made, arrays)
        return made(x), nnx.to_pure_dict(nnx.state(made, nnx.BatchStat))

    arrays = nnx.to_pure_dict(nnx.state(layer()))
    struct = jax.ShapeDtypeStruct(export.symbolic_shape(f"b, h, w, {C}"), jnp.float32)
    written = export.export(jax.jit(run))(arrays, struct).serialize()
    read = export.deserialize(written)
    for shape in [(3, 5, 4, C), (16, 2, 3, C)]:
        x = 2 + jax.random.normal(jax.random.key(1), shape)
        assert_same(read.call(arrays, x), run(arrays, x), 1e-5)
