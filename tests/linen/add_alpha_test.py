"""A batch-normalized model's variables, carried over to the unitized model."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracle import assert_close
from unitnorm_jax.contrib.estimated_batch_norm import EstimatedBatchNorm
from unitnorm_jax.linen import UnitizedBatchNorm, add_alpha


class CNN(nn.Module):
    """Two normalizations at different depths, one without scale and bias, one LayerNorm."""

    norm: Any

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3), name="stem")(x)
        x = nn.relu(self.norm(use_running_average=not train, name="first")(x))
        x = x + Block(self.norm, name="block")(x, train)
        x = nn.LayerNorm(name="layer_norm")(x)  # has scale and bias but must get no alpha
        x = self.norm(use_running_average=not train, use_scale=False, name="last")(x)
        return nn.Dense(3)(x.mean((1, 2)))


class Block(nn.Module):
    norm: Any

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(6, (1, 1))(x)
        x = nn.relu(self.norm(use_running_average=not train, name="inner")(x))
        return nn.Conv(4, (1, 1))(x)


X = jax.random.normal(jax.random.key(0), (4, 5, 5, 2)) + 1


@pytest.fixture(scope="module")
def trained():
    """Variables of the batch-normalized model after a step that moved everything."""
    model = CNN(nn.BatchNorm)
    variables = jax.jit(model.init, static_argnums=2)(jax.random.key(1), X, True)
    _, updated = model.apply(variables, X, True, mutable=["batch_stats"])
    params = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])
    return {"params": params, **updated}


def test_the_converted_model_is_the_same_function(trained):
    converted = add_alpha(trained)
    plain, unitized = CNN(nn.BatchNorm), CNN(UnitizedBatchNorm)
    for train in (False, True):
        y, averages = plain.apply(trained, X, train, mutable=["batch_stats"])
        ours, our_averages = unitized.apply(converted, X, train, mutable=["batch_stats"])
        assert_close(ours, y, 1e-5)
        jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), our_averages, averages)


def test_the_tree_is_that_of_the_unitized_model(trained):
    converted = add_alpha(trained)
    expected = CNN(UnitizedBatchNorm).init(jax.random.key(1), X, False)
    assert jax.tree.map(jnp.shape, dict(converted)) == jax.tree.map(jnp.shape, expected)
    added = {
        path[:-1]
        for path in flax.traverse_util.flatten_dict(converted["params"])
        if path[-1] == "alpha"
    }
    assert added == {("first",), ("block", "inner"), ("last",)}
    np.testing.assert_array_equal(converted["params"]["block"]["inner"]["alpha"], np.zeros(6))


def test_nothing_is_changed_in_place(trained):
    before = jax.tree.map(np.asarray, trained)
    structure = jax.tree.structure(trained)
    converted = add_alpha(trained)
    assert jax.tree.structure(trained) == structure
    jax.tree.map(np.testing.assert_array_equal, trained, before)
    for kind in ("params", "batch_stats"):
        kept = flax.traverse_util.flatten_dict(trained[kind])
        new = flax.traverse_util.flatten_dict(converted[kind])
        for path, leaf in kept.items():
            np.testing.assert_array_equal(new[path], leaf)


def test_alpha_learns_after_conversion(trained):
    converted = add_alpha(trained)

    def loss(params):
        y, _ = CNN(UnitizedBatchNorm).apply(
            {**converted, "params": params}, X, True, mutable=["batch_stats"]
        )
        return jnp.sum(y**2)

    grads = jax.jit(jax.grad(loss))(converted["params"])
    assert np.abs(grads["block"]["inner"]["alpha"]).max() > 1e-4


@pytest.mark.parametrize("without", ["scale and bias", "bias"])
def test_bare_normalization_alone(without):
    """The root module itself; with no parameters at all the statistics still tell where."""
    module = {"use_bias": False, "use_scale": without == "bias"}
    plain = nn.BatchNorm(use_running_average=True, **module)
    variables = plain.init(jax.random.key(0), X)
    converted = add_alpha(variables)
    y = UnitizedBatchNorm(use_running_average=True, **module).apply(converted, X)
    assert_close(y, plain.apply(variables, X), 1e-6)


def boxed_norm(box):
    names = ("model",)
    make = {"partitioned": nn.with_partitioning, "logical": nn.with_logical_partitioning}[box]
    return nn.BatchNorm(
        use_running_average=True,
        scale_init=make(nn.initializers.ones, names),
        bias_init=make(nn.initializers.zeros, names),
    )


@pytest.mark.parametrize("box", ["partitioned", "logical"])
def test_alpha_has_the_box_of_scale(box):
    variables = boxed_norm(box).init(jax.random.key(0), X)
    params = add_alpha(variables)["params"]
    assert type(params["alpha"]) is type(params["scale"])
    assert params["alpha"].names == ("model",)
    np.testing.assert_array_equal(nn.meta.unbox(params)["alpha"], np.zeros(2))
    assert jax.tree.structure(nn.get_partition_spec(params)["alpha"]) == jax.tree.structure(
        nn.get_partition_spec(params)["scale"]
    )


def test_alpha_has_the_dtype_of_the_parameters():
    layer = nn.BatchNorm(use_running_average=True, use_scale=False, param_dtype=jnp.bfloat16)
    converted = add_alpha(layer.init(jax.random.key(0), X))
    assert converted["params"]["alpha"].dtype == jnp.bfloat16


def test_other_layers_get_none():
    """A mean alone, a mean with a count, parameters of another kind, unequal shapes."""
    norm = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    own = {"scale": jnp.ones(3), "bias": jnp.zeros(3)}
    stats = {
        "bn": norm,
        "mean_only": {"mean": jnp.zeros(3)},
        "estimated": {**norm, "count": jnp.zeros(())},
        "channel": norm,
        "sizes": {"mean": jnp.zeros(3), "var": jnp.ones(4)},
        "nested": {**norm, "inner": {"x": jnp.zeros(2)}},
    }
    params = dict.fromkeys(stats, own)
    params["channel"] = {**own, "group_scale": jnp.ones(2)}
    converted = add_alpha({"params": params, "batch_stats": stats})["params"]
    assert [name for name, layer in converted.items() if "alpha" in layer] == ["bn"]


@pytest.mark.parametrize("freeze", ["all", "params"])
def test_frozen_variables_stay_frozen(freeze, trained):
    freezer = flax.core.freeze
    frozen = freezer(trained) if freeze == "all" else {**trained, "params": freezer(
        trained["params"])}  # fmt: skip
    converted = add_alpha(frozen)
    assert isinstance(converted, flax.core.FrozenDict) == (freeze == "all")
    assert isinstance(converted["params"], flax.core.FrozenDict)
    plain = add_alpha(trained)
    jax.tree.map(
        np.testing.assert_array_equal, flax.core.unfreeze(converted["params"]), plain["params"]
    )


def test_no_batch_normalization_at_all():
    x = jnp.ones((2, 3))
    variables = EstimatedBatchNorm(rate=lambda n: 0.1).init(
        jax.random.key(0), x, use_running_average=True
    )
    with pytest.raises(ValueError, match="No layer of `variables` is a batch normalization"):
        add_alpha(variables)


def test_empty_modules_stay():
    """Some trees hold a module without parameters as an empty dictionary."""
    norm = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    variables = {"params": {"bn": {}, "other": {}}, "batch_stats": {"bn": norm}}
    converted = add_alpha(variables)["params"]
    assert converted["other"] == {}
    assert list(converted["bn"]) == ["alpha"]
