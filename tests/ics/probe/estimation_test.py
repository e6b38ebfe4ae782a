"""Estimation shift as columns of a probe's report: numpy in float64 is the oracle."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from unitnorm_jax import ICSProbe

X = jax.random.normal(jax.random.key(0), (6, 4, 3))


def shifts(mean, var, x):
    x = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
    return [
        np.linalg.norm(np.asarray(a, np.float64) - b)
        for a, b in ((mean, x.mean(0)), (np.sqrt(var), x.std(0)))
    ]


def columns(row):
    return [row["estimation_mean"], row["estimation_std"]]


def moved(variables):
    """Other parameters, and other running statistics."""
    return {
        "params": jax.tree.map(lambda p: 1.1 * p, variables["params"]),
        "batch_stats": jax.tree.map(lambda s: s + 0.3, variables["batch_stats"]),
    }


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_of_the_state_after_with_the_inputs_of_the_mode(mode):
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.relu(nn.BatchNorm(use_running_average=not train, name="a")(x))
            return nn.LayerNorm(name="c")(nn.BatchNorm(use_running_average=not train, name="b")(x))

    model = Network()
    before = model.init(jax.random.key(1), X)
    after = moved(before)
    kwargs = {"train": mode == "train"}
    probe = ICSProbe(
        *(model, X), mode=mode, train_kwargs=kwargs, eval_kwargs=kwargs, measures=("estimation",)
    )
    first, second, none = probe(before, after).rows()
    a, b = (after["batch_stats"][name] for name in "ab")
    np.testing.assert_allclose(columns(first), shifts(a["mean"], a["var"], X), rtol=1e-5)
    hidden, _ = nn.BatchNorm(use_running_average=mode == "eval").apply(
        {"params": after["params"]["a"], "batch_stats": a}, X, mutable=["batch_stats"]
    )
    expected = shifts(b["mean"], b["var"], np.maximum(hidden, 0))
    np.testing.assert_allclose(columns(second), expected, rtol=1e-5)
    assert np.isnan(columns(none)).all()


def test_layers_of_a_scan_one_by_one():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.BatchNorm(use_running_average=True, name="norm")(x), None

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            axes, split = {"params": 0, "batch_stats": 0}, {"params": True}
            return nn.scan(Block, variable_axes=axes, split_rngs=split, length=3)(name="s")(x, None)

    model = Network()
    variables = model.init(jax.random.key(1), X)
    stats = jax.tree.map(lambda s: s + 0.1 * jnp.arange(1.0, 4)[:, None], variables["batch_stats"])
    variables = {**variables, "batch_stats": stats}
    rows = ICSProbe(model, X, measures=("estimation",))(variables, variables).rows()
    x = np.asarray(X, np.float64)
    for i, row in enumerate(rows):
        assert row["layer"].endswith(f"norm[{i}]")
        mean, var = (
            np.asarray(stats["s"]["norm"][name][i], np.float64) for name in ("mean", "var")
        )
        np.testing.assert_allclose(columns(row), shifts(mean, var, x), rtol=1e-4)
        x = (x - mean) / np.sqrt(var + 1e-5)


def test_nnx_in_both_modes():
    model = nnx.Sequential(nnx.BatchNorm(3, rngs=nnx.Rngs(0)), nnx.relu)
    model.layers[0].mean[...] += 0.5
    state = nnx.state(model)
    for mode in ("eval", "train"):
        probe = ICSProbe(model, X, mode=mode, measures=("estimation",))
        (row,) = probe(probe.keep(model), state).rows()
        np.testing.assert_allclose(columns(row), shifts(np.full(3, 0.5), np.ones(3), X), rtol=1e-5)


def test_where_there_is_none_it_is_nan_or_an_error():
    model = nn.BatchNorm(use_running_average=True)
    variables = model.init(jax.random.key(1), X)

    class Masked(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=True)(
                x, mask=jnp.ones((*x.shape[:-1], 1), bool)
            )

    masked = Masked()
    stored = masked.init(jax.random.key(1), X)
    (row,) = ICSProbe(masked, X, measures=("estimation",))(stored, moved(stored)).rows()
    assert np.isnan(columns(row)).all()
    (row,) = ICSProbe(model, X, measures=("estimation",))(variables, moved(variables)).rows()
    assert np.isfinite(columns(row)).all()
    with pytest.raises(ValueError, match=r"has 'estimation', which needs the inputs of layers"):
        ICSProbe.of(lambda w, x: {"y": x * w}, X, measures=("estimation",))
