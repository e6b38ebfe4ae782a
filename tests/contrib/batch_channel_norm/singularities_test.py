"""Elimination singularities of a network: the diagnosis, and what it shows of normalizations."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracle import assert_close
from unitnorm_jax.contrib.batch_channel_norm import BatchChannelNorm, elimination_singularities


class Net(nn.Module):
    norm: nn.Module

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(8, (3, 3), name="conv")(x)
        return nn.Dense(3)(nn.relu(self.norm(x, **train)).mean((1, 2)))


IMAGES = jax.random.normal(jax.random.key(0), (3, 16, 6, 6, 2))
STILL = {"use_running_average": True}


def build(norm, bias):
    """A network whose pre-activations have a common offset before the norm."""
    model = Net(norm)
    train = {} if isinstance(norm, nn.GroupNorm) else {"use_running_average": False}
    variables = jax.jit(partial(model.init, train=train))(jax.random.key(1), IMAGES[0])
    variables["params"]["conv"]["bias"] = jnp.asarray(bias)
    step = jax.jit(partial(model.apply, train=train, mutable=["batch_stats"]))
    for x in 20 * list(IMAGES) if train else ():
        variables |= step(variables, x)[1]
    return model, variables, STILL if train else {}


def test_numbers_are_those_of_the_outputs():
    bias = np.linspace(-12, 12, 8, dtype=np.float32)
    model, variables, train = build(nn.GroupNorm(2), bias)
    batches = [IMAGES[0], IMAGES[1], IMAGES[2][:5]]  # unequal batches
    (layer,) = elimination_singularities(model, variables, batches, train=train)
    x = jnp.concatenate(batches)
    conv = nn.Conv(8, (3, 3)).apply({"params": variables["params"]["conv"]}, x)
    y = np.asarray(nn.GroupNorm(2).apply({"params": variables["params"]["norm"]}, conv))
    y = y.reshape(-1, 8).astype(np.float64)
    assert (layer.layer, layer.channels) == ("norm", 8)
    assert layer.dead == (y.max(0) <= 0).sum() > 0
    assert layer.dead_fraction == layer.dead / 8
    ratio = np.abs(y.mean(0)) / y.std(0)
    assert_close(layer.mean_to_std, ratio, 1e-4)
    assert layer.worst == pytest.approx(ratio.max(), rel=1e-4)


def test_batch_channel_normalization_keeps_channels_alive():
    """Offsets that kill channels under group normalization do nothing here: the paper's point."""
    bias = np.linspace(-12, 12, 8, dtype=np.float32)
    results = {}
    for norm in (nn.GroupNorm(2), BatchChannelNorm(num_groups=2, momentum=0.9)):
        model, variables, train = build(norm, bias)
        (results[type(norm)],) = elimination_singularities(
            model, variables, IMAGES, layers=type(norm), train=train
        )
    assert results[nn.GroupNorm].dead > 0
    assert results[nn.GroupNorm].worst > 3
    assert results[BatchChannelNorm].dead == 0
    assert results[BatchChannelNorm].worst < 0.2


def test_wrong_arguments():
    model, variables, train = build(nn.GroupNorm(2), np.zeros(8, np.float32))
    with pytest.raises(ValueError, match="`batches` is empty"):
        elimination_singularities(model, variables, [], train=train)
    with pytest.raises(ValueError, match="`layers` selects no layer"):
        elimination_singularities(model, variables, IMAGES, layers="nowhere", train=train)


class Parts(nn.Module):
    """A layer that returns its pre-activations among others."""

    wrap: Callable

    @nn.compact
    def __call__(self, x):
        return self.wrap(x - 9, x)


def test_which_of_several_arrays():
    x = IMAGES[:, :, 0, 0]

    def dead(wrap, **options):
        found = elimination_singularities(Parts(wrap), {}, x, layers=Parts, **options)
        return [layer.dead for layer in found]

    def named(low, high):
        return {"low": low, "high": high}

    assert dead(lambda low, high: low) == [2]
    assert dead(lambda low, high: (low, high)) == [2]
    assert dead(lambda low, high: (low, high), outputs=("[1]",)) == [0]
    assert dead(named, outputs=None) == [0, 2]
    match = (
        r"`outputs` \(=\('', '\[0\]'\)\) selects no array: .* \"\['high'\]\".*; name some of these"
    )
    with pytest.raises(ValueError, match=match):
        dead(named)


def test_channels_that_are_not_finite_are_named():
    class Poisoned(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x.at[0, 1].set(jnp.nan)

    x = IMAGES[:, :, 0, 0]
    (layer,) = elimination_singularities(Poisoned(), {}, x, layers=Poisoned)
    assert layer.not_finite == [1]
    assert np.isnan(layer.worst)
    assert np.isfinite(layer.mean_to_std[0])


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.LayerNorm(name="norm")(x), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, x):
        axes = {"params": 0, "intermediates": 0}
        return nn.scan(Step, variable_axes=axes, split_rngs={"params": True}, length=3)()(x, None)[
            0
        ]


def test_channels_of_several_layers_are_not_one():
    x = IMAGES[:, :, 0, 0]
    variables = Scanned().init(jax.random.key(0), x[0])
    with pytest.raises(ValueError, match=r"norm', inside nn.scan or nn.vmap, come stacked \(shape"):
        elimination_singularities(Scanned(), variables, x)
