"""nnx models are probed as linen's are, and stay as they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.ics.probe.quick import Quick
from unitnorm_jax import ics

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


class Block(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.linear(x)))


class Child(nnx.LayerNorm):
    """Inherits its call."""


class Net(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([Block(rngs), Block(rngs)])
        self.last = Child(4, rngs=rngs)

    def __call__(self, x, flag=False):
        assert flag is True or flag is False
        for block in self.blocks:
            x = block(x)
        return self.last(self.last(x))


def moved(model, scale=1.5):
    """Another model, of which every parameter has changed, and random streams have gone on."""
    other = nnx.clone(model)
    move = lambda p: scale * p + 0.1 * jnp.sin(1.0 + jnp.arange(p.size)).reshape(p.shape)  # noqa: E731
    nnx.update(other, jax.tree.map(move, nnx.state(other, nnx.Param)))
    other.train()
    other(X)
    nnx.update(other, nnx.state(model, nnx.BatchStat))
    return other


def outputs_by_hand(model, mode):
    model = nnx.clone(model)
    _ = model.train() if mode == "train" else model.eval()
    x, found = X, []
    for block in model.blocks:
        found.append(block.norm(block.linear(x)))
        x = block.dropout(found[-1])
    for _ in range(2):
        x = model.last(x)
        found.append(x)
    return found


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_modules_of_a_model(mode):
    before = Net(nnx.Rngs(0))
    after = moved(before)
    if mode == "train":  # the same noise on both sides
        expected = nnx.clone(after)
        nnx.update(expected, nnx.state(before, nnx.RngState))
    else:
        expected = after
    probe = Quick(before, (X, True), mode=mode)
    assert not before.blocks[0].norm.use_running_average
    kept = probe.keep(before)
    for report in (probe(before, after), probe(kept, nnx.state(after))):
        rows = report.rows()
        names = [(row["layer"], row["call"], row["kind"]) for row in rows]
        assert names == [
            *((f"blocks/{i}/norm", 0, "BatchNorm") for i in range(2)),
            *(("last", i, "Child") for i in range(2)),
        ]
        statistics = "batch" if mode == "train" else "running"
        assert [row["statistics"] for row in rows] == [statistics] * 2 + ["none"] * 2
        sides = [outputs_by_hand(model, mode) for model in (before, expected)]
        for row, x, y in zip(rows, *sides, strict=True):
            assert row["value"] == pytest.approx(np.linalg.norm(x - y, axis=1).mean(), rel=1e-4)
    # The model is as it was, and so is its class.
    assert not before.blocks[0].norm.use_running_average
    assert not hasattr(before.last, "_ics_place")
    assert "__call__" not in vars(Child)
    np.testing.assert_array_equal(before.blocks[0].norm.mean[...], 0)


def test_a_record_sees_a_model_that_changes_in_place():
    model = Net(nnx.Rngs(0))
    probe = Quick(model, X, ("blocks/1/*", Child))
    record = ics.ICSRecord(probe, every=1)
    for step in range(2):
        record(step, model)
        model.blocks[0].linear.kernel[...] = 2 * model.blocks[0].linear.kernel[...]
        model.blocks[1].linear.bias[...] += jnp.arange(4.0)
    rows = record.rows()
    assert [row["layer"] for row in rows] == [
        *("blocks/1/linear", "blocks/1/norm", "blocks/1/dropout", "last", "last"),
    ]
    assert all(row["value"] > 1e-3 for row in rows)
    for alias in (model, nnx.state(model)):
        with pytest.raises(ValueError, match=r"\(=one model\) must be two states, but nnx changes"):
            probe(alias, model)


class Stacked(nnx.Module):
    def __init__(self, rngs, transform):
        self.transform = transform

        @nnx.split_rngs(splits=8)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def make(rngs):
            return Block(rngs)

        self.layers = make(rngs)

    def __call__(self, x):
        return self.transform(self.layers, x)


JITTED = nnx.jit(lambda layer, x: layer(x))
LIFTED = {
    "scan": lambda layers, x: nnx.scan(
        lambda layer, x: layer(x), in_axes=(0, nnx.Carry), out_axes=nnx.Carry
    )(layers, x),
    "vmap": lambda layers, x: nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None))(layers, x),
}


@pytest.mark.parametrize("name", LIFTED)
def test_stacked_layers_one_by_one(name):
    before = Stacked(nnx.Rngs(0), LIFTED[name])
    rows = Quick(before, X)(before, moved_state(before)).rows()
    assert [row["layer"] for row in rows] == [f"layers/norm[{i}]" for i in range(8)]
    assert {(row["n"], row["d"], row["statistics"]) for row in rows} == {(8, 4, "running")}
    graph, state = nnx.split(before.layers)
    x, y = X, X
    for i, row in enumerate(rows):
        sides = []
        for scale, z in ((1.0, x), (1.5, y)):
            layer = nnx.merge(graph, jax.tree.map(lambda p, i=i: p[i], state))
            layer.linear.kernel[...] = scale * layer.linear.kernel[...]
            layer.eval()
            sides.append(layer.norm(layer.linear(z)))
        assert row["value"] == pytest.approx(
            np.linalg.norm(sides[0] - sides[1], axis=1).mean(), rel=1e-3
        )
        x, y = sides if name == "scan" else (X, X)


def moved_state(model):
    return jax.tree.map_with_path(
        lambda path, p: 1.5 * p if "kernel" in jax.tree_util.keystr(path) else p, nnx.state(model)
    )


@pytest.mark.parametrize("wrap", [nnx.remat(lambda m, x: m(x)), JITTED])
def test_inside_jit_and_remat_again_and_again(wrap):
    class Wrapped(Net):
        def __call__(self, x):
            for block in self.blocks:
                x = wrap(block, x)
            return x

    before, plain = Wrapped(nnx.Rngs(0)), Net(nnx.Rngs(0))
    expected = Quick(plain, X, "*norm", mode="train")(plain, moved_state(plain)).rows()
    for _ in range(2):
        found = Quick(before, X, "*norm", mode="train")(before, moved_state(before)).rows()
        assert [row["statistics"] for row in found] == ["batch"] * 2
        for one, other in zip(found, expected, strict=True):
            assert one["value"] == pytest.approx(other["value"], rel=1e-4)


def test_layers_that_reduce_over_a_mapped_axis():
    model = nnx.BatchNorm(4, axis_name="d", rngs=nnx.Rngs(0))
    (row,) = Quick(model, X, mode="train", axis_name="d")(model, moved_scale(model)).rows()
    assert (row["layer"], row["statistics"], row["n"], row["d"]) == ("", "batch", 8, 4)
    assert row["value"] > 0


def moved_scale(model):
    return jax.tree.map(lambda p: 1.5 * p, nnx.state(model))


def test_errors():
    model = Net(nnx.Rngs(0))
    with pytest.raises(
        ValueError, match=r"`variables_before` \(=State\) must be the model that the"
    ):
        ics.ICSProbe(model, X)(model.blocks[0], model)
    with pytest.raises(
        ValueError, match=r"selects no module that the model calls, .*'blocks/0/norm'"
    ):
        ics.ICSProbe(model, X, nnx.Conv)(model, moved(model))
    with pytest.raises(ValueError, match=r"`layers` \(=3\) must be a class of flax.nnx.Module"):
        ics.ICSProbe(model, X, 3)
    with pytest.raises(
        ValueError, match=r"`rngs` \(=\['dropout'\]\) must be None for an nnx model"
    ):
        ics.ICSProbe(model, X, rngs={"dropout": jax.random.key(0)})
