"""Conversion in place: parameters, statistics, paths and outputs stay."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

import unitnorm_jax
from tests.nnx.models import Net
from tests.oracle import assert_close
from unitnorm_jax.nnx import UnitizedBatchNorm, unitize

X = 2 + jax.random.normal(jax.random.key(0), (8, 6, 6, 3))


def trained():
    """A model whose parameters and statistics are not the first ones."""
    model = Net(nnx.Rngs(0))
    model(X)
    return model


def flat(model):
    return dict(nnx.to_flat_state(nnx.state(model)))


def test_parameters_statistics_and_paths_stay():
    model = trained()
    before = jax.tree.map(jnp.copy, flat(copy.deepcopy(model)))
    modules = {id(m) for _, m in nnx.iter_modules(model)}
    assert unitize(model, unit="rms") is model
    assert {id(m) for _, m in nnx.iter_modules(model)} == modules
    after = flat(model)
    added = after.keys() - before.keys()
    layers = [
        ("stem", "layers", 1),
        ("blocks", 0, "norm"),  # shared with the next, and converted once
        ("blocks", 2, "norm"),
        ("heads", "norm"),
    ]
    assert added == {(*path, "alpha") for path in layers}
    for path in added:
        assert type(after[path]) is nnx.Param
        np.testing.assert_array_equal(after[path][...], np.zeros(4))
    for path, variable in before.items():
        np.testing.assert_array_equal(after[path][...], variable[...])
    shared = model.blocks[0].norm
    assert shared is model.blocks[1].norm
    assert type(shared) is UnitizedBatchNorm
    assert (shared.unit, shared.momentum, shared.num_features) == ("rms", 0.9, 4)


@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_it_computes_what_it_did_and_alpha_matters(train):
    theirs, ours = trained(), unitize(trained(), unit="rms")
    for model in (theirs, ours):
        model.train() if train else model.eval()
    run = nnx.jit(lambda model, x: model(x))
    assert_close(run(ours, X), run(theirs, X), 1e-5)
    after = flat(ours)
    for path, variable in flat(theirs).items():
        assert_close(after[path][...], variable[...], 1e-5)
    for path, variable in after.items():
        if path[-1] == "alpha":
            variable[...] += 0.5
    assert np.abs(run(ours, X) - run(theirs, X)).max() > 1e-2


def test_options():
    model = nnx.Sequential(nnx.BatchNorm(4, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    unitize(
        model,
        unit=0.3,
        alpha_init=nnx.initializers.constant(0.25),
        sample_axis=[0, 1],
        bessel_correction=True,
        alpha_metadata={"tag": "a"},
    )
    layer = model.layers[0]
    assert (layer.unit, layer.sample_axis, layer.bessel_correction) == (0.3, (0, 1), True)
    assert layer.alpha[...].dtype == jnp.bfloat16
    assert layer.alpha.get_metadata("tag") == "a"
    np.testing.assert_array_equal(layer.alpha[...], np.full(4, 0.25))
    x = jax.random.normal(jax.random.key(0), (2, 3, 4))
    made = UnitizedBatchNorm(
        4,
        param_dtype=jnp.bfloat16,
        unit=0.3,
        alpha_init=nnx.initializers.constant(0.25),
        sample_axis=(0, 1),
        bessel_correction=True,
        rngs=nnx.Rngs(0),
    )
    np.testing.assert_array_equal(layer(x), made(x))


def test_random_alphas():
    normal = nnx.initializers.normal()
    rngs = nnx.Rngs(0)
    model = unitize(trained(), alpha_init=normal, rngs=rngs)
    alphas = [v[...] for path, v in flat(model).items() if path[-1] == "alpha"]
    assert len({float(a[0]) for a in alphas}) == len(alphas) == 4
    assert rngs.params.count[...] == 4
    with pytest.raises(ValueError, match=r"`rngs` \(=None\).*alpha_init"):
        unitize(trained(), alpha_init=normal)


@pytest.mark.parametrize(
    ("select", "chosen"),
    [
        (lambda path, layer: path[0] == "blocks" and layer.num_features == 4, 2),
        (nnx.PathContains("stem"), 1),
        ((nnx.PathContains("stem"), nnx.PathContains("heads")), 2),
        (nnx.BatchNorm, 4),
        (..., 4),
    ],
    ids=["function", "filter", "filters", "class", "all"],
)
def test_select(select, chosen):
    model = unitize(Net(nnx.Rngs(0)), select=select)
    units = [m for _, m in nnx.iter_modules(model) if type(m) is UnitizedBatchNorm]
    assert len(units) == chosen


def test_others_in_a_second_call():
    model = unitize(Net(nnx.Rngs(0)), select=nnx.PathContains("stem"), unit="rms")
    unitize(model, unit="sample")
    assert model.stem.layers[1].unit == "rms"
    assert model.heads["norm"].unit == "sample"


@pytest.mark.parametrize("metadata", [False, True], ids=["", "metadata"])
def test_layers_built_under_vmap(metadata):
    """Stacked Variables: alpha has the shape and the metadata of scale, and a scan takes slices."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    options = {"scale_metadata": {"out_sharding": (None,)}} if metadata else {}

    def norm(key):
        return nnx.BatchNorm(4, rngs=nnx.Rngs(key), **options)

    transform = {"transform_metadata": {nnx.PARTITION_NAME: None}} if metadata else {}
    make = nnx.vmap(norm, **transform)
    with jax.set_mesh(mesh):
        stack = unitize(make(jax.random.split(jax.random.key(0), 3)), unit="rms")
    assert stack.alpha.shape == stack.mean.shape == (3, 4)
    assert stack.alpha.get_metadata() == stack.scale.get_metadata()
    assert ("out_sharding" in stack.alpha.get_metadata()) == metadata
    if metadata:
        assert stack.alpha.get_metadata("out_sharding") == (None, None)
        return
    stack.alpha[...] += jnp.arange(3.0)[:, None] / 2
    x = jax.random.normal(jax.random.key(1), (5, 4))
    y = nnx.jit(nnx.scan(lambda x, m: m(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry))(x, stack)
    for i in range(3):
        layer = UnitizedBatchNorm(4, unit="rms", rngs=nnx.Rngs(0))
        layer.alpha[...] += i / 2
        x = layer(x)
        assert_close(stack.mean[i], layer.mean[...], 1e-5)
    assert_close(y, x, 1e-5)


def test_alpha_has_the_sharding_of_scale():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    layer = nnx.BatchNorm(8, rngs=nnx.Rngs(0))
    layer.scale[...] = jax.device_put(layer.scale[...], jax.NamedSharding(mesh, PartitionSpec("d")))
    model = unitize(nnx.List([layer, nnx.BatchNorm(4, rngs=nnx.Rngs(0))]))
    assert model[0].alpha[...].sharding == layer.scale[...].sharding
    assert not model[1].alpha[...].committed
    assert type(model[0]) is UnitizedBatchNorm


def test_abstract_models():
    """To restore a checkpoint into: no array is made."""
    abstract = unitize(nnx.eval_shape(lambda: Net(nnx.Rngs(0))))
    alpha = abstract.stem.layers[1].alpha
    assert type(alpha) is nnx.Param
    assert alpha.get_value() == jax.ShapeDtypeStruct((4,), jnp.float32)
    concrete = unitize(trained(), alpha_init=nnx.initializers.ones)
    graph, _ = nnx.split(abstract)
    restored = nnx.merge(graph, nnx.state(concrete), copy=True)
    np.testing.assert_array_equal(restored(X), concrete(X))
    inside = nnx.eval_shape(lambda: unitize(Net(nnx.Rngs(0))))
    assert nnx.graphdef(inside) == graph


def test_without_parameters():
    bare = nnx.BatchNorm(4, use_scale=False, use_bias=False, param_dtype=jnp.bfloat16, rngs=None)
    unitize(bare)  # a layer itself is a model, too
    assert type(bare) is UnitizedBatchNorm
    assert (bare.alpha.shape, bare.alpha[...].dtype) == ((4,), jnp.bfloat16)
    assert type(bare.alpha) is nnx.Param
    assert bare(jnp.ones((2, 4))).shape == (2, 4)


class Defaults(nnx.BatchNorm):
    """Calls as its base does."""

    def __init__(self, num_features, rngs):
        super().__init__(num_features, momentum=0.5, rngs=rngs)
        self.label = "mine"

    def half(self):
        return self.num_features / 2


class Renorm(nnx.BatchNorm):
    """Computes something else."""

    def __call__(self, x, use_running_average=None, *, mask=None):
        return 2 * super().__call__(x, use_running_average, mask=mask)


def test_subclasses():
    rngs = nnx.Rngs(0)
    model = nnx.List([Defaults(4, rngs), Defaults(4, rngs), Renorm(4, rngs=rngs)])
    unitize(model, unit="rms", alpha_init=nnx.initializers.ones)
    mine = model[0]
    assert isinstance(mine, UnitizedBatchNorm)
    assert isinstance(mine, Defaults)
    assert type(mine) is type(model[1])
    assert (mine.label, mine.half(), mine.momentum) == ("mine", 2, 0.5)
    assert type(model[2]) is Renorm
    x = jax.random.normal(jax.random.key(0), (5, 4))
    y = nnx.clone(mine)(x)
    for other in (pickle.loads(pickle.dumps(mine)), copy.deepcopy(mine), nnx.clone(mine)):
        assert type(other) is type(mine)
        np.testing.assert_array_equal(other(x), y)
    reference = UnitizedBatchNorm(
        4, momentum=0.5, unit="rms", alpha_init=nnx.initializers.ones, rngs=rngs
    )
    np.testing.assert_array_equal(reference(x), y)
    with pytest.raises(ValueError, match=r"modules are Renorm\..*__call__ of its own"):
        unitize(Renorm(4, rngs=rngs))


def test_one_name_for_both():
    model = Net(nnx.Rngs(0))
    assert unitnorm_jax.unitize(model, unit="rms") is model
    assert model.heads["norm"].unit == "rms"
