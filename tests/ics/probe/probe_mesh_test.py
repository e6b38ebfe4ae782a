"""Probes of arrays on meshes, explicit, automatic or none, are those of one device."""

import contextlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.ics.probe.quick import Quick
from unitnorm_jax import ics
from unitnorm_jax.contrib.batch_channel_norm import elimination_singularities

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        norm = nn.BatchNorm(use_running_average=not train, name="norm")
        return nn.LayerNorm()(nn.Dense(4)(norm(nn.Dense(4)(x))))


BEFORE = Net().init(jax.random.key(0), X, train=False)
AFTER = {**BEFORE, "params": jax.tree.map(lambda p: 1.1 * p + 0.05, BEFORE["params"])}


def expected():
    outputs = [
        ics.layer_outputs(
            Net(), v, (X,), {"train": True}, wanted=ics.layer_filter(None), mode="train"
        )
        for v in (BEFORE, AFTER)
    ]
    pairs = zip(*outputs, strict=True)
    return [np.linalg.norm(x.value - y.value, axis=1).mean() for x, y in pairs]


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    "axis_type", [AxisType.Auto, pytest.param(AxisType.Explicit, marks=pytest.mark.slow)]
)
def test_a_mesh_changes_nothing(axis_type, inside):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(axis_type,))
    places = [None, PartitionSpec(), PartitionSpec("d")]

    def put(tree, spec):
        return tree if spec is None else jax.device_put(tree, NamedSharding(mesh, spec))

    with jax.set_mesh(mesh) if inside else contextlib.nullcontext():
        for spec in places:
            probe = Quick(Net(), put(X, spec), mode="train", train_kwargs={"train": True})
            for other in places[:2]:
                before, after = put(BEFORE, other), put(AFTER, other)
                for measured in (
                    probe(before, after),
                    probe(probe.keep(before), after),
                    jax.jit(lambda probe, *sides: probe(*sides))(probe, before, after),
                ):
                    assert float(measured.measures.spread.sum() + 1) > 1  # beside other arrays, too
                    np.testing.assert_allclose(measured.measures.spread, expected(), rtol=1e-4)
                    assert [info.statistics for info in measured.infos] == ["batch", "none"]


def test_a_sharded_state_and_a_batch_on_one_device():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    model = nn.Sequential([nn.Dense(16), nn.LayerNorm()])
    before = model.init(jax.random.key(0), X)
    after = jax.tree.map(lambda p: 1.1 * p + 0.05, before)
    expected = Quick(model, X)(before, after).rows()

    def shard(p):
        spec = PartitionSpec(*[None] * (p.ndim - 1), "d")
        return jax.device_put(p, NamedSharding(mesh, spec))

    probe = Quick(model, jax.device_put(X, jax.devices()[0]))
    sharded = [jax.tree.map(shard, side) for side in (before, after)]
    for report in (probe(*sharded), probe(probe.keep(sharded[0]), sharded[1])):
        assert len(report.measures.spread.sharding.device_set) == 8
        assert report.rows()[0]["value"] == pytest.approx(expected[0]["value"], rel=1e-5)


@pytest.mark.parametrize("scale", [0.05, 5.0])
def test_distances_inside_an_explicit_mesh(scale, exact):
    """With the host's solver where the pairing does not settle it."""
    model = nn.Sequential([nn.Dense(4), nn.LayerNorm()])
    before = model.init(jax.random.key(0), X)
    after = jax.tree.map(
        lambda p: p + scale * jnp.sin(1.0 + jnp.arange(p.size)).reshape(p.shape), before
    )
    x, y = (model.apply(v, X) for v in (before, after))
    with jax.set_mesh(jax.make_mesh((8,), ("d",))):
        (layer,) = PROBE(before, after).layers
        (activity,) = elimination_singularities(model, before, [X])
    assert float(layer.distance.value) == pytest.approx(exact(x, y), rel=1e-4)
    assert activity.channels == 4


PROBE = ics.ICSProbe(nn.Sequential([nn.Dense(4), nn.LayerNorm()]), X)
