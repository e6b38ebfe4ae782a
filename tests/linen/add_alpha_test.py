"""A batch-normalized model's variables, carried over to the unitized model."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracle import assert_close
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
