"""Noise on the outputs of a model's layers: reproducible, and what recalibration sees of it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contrib.noise_aware_batch_norm.noisy_network import BATCHES, setup
from tests.oracle import assert_close
from unitnorm_jax.contrib.noise_aware_batch_norm import collect_statistics, noisy_outputs


def test_noisy_outputs_are_reproducible_per_key_layer_and_call():
    model, variables, _ = setup()
    x = BATCHES[0]

    @jax.jit
    def run(key, strength=0.3):
        with noisy_outputs(jax.random.key(key), strength):
            return model.apply(variables, x)

    clean = jax.jit(model.apply)(variables, x)
    np.testing.assert_array_equal(run(0), run(0))
    assert_close(run(0, 0.0), clean, 1e-6)
    assert np.abs(run(0) - run(1)).max() > 1e-3
    with noisy_outputs(jax.random.key(0), 0.3, layers=(nn.Embed,)):
        np.testing.assert_array_equal(jax.jit(model.apply)(variables, x), clean)

    class Shared(nn.Module):
        @nn.compact
        def __call__(self, x):
            dense = nn.Dense(50, kernel_init=nn.initializers.ones)
            return dense(x), dense(x), nn.Dense(50, kernel_init=nn.initializers.ones)(x)

    one = jnp.ones((1, 2))
    shared = Shared()
    start = shared.init(jax.random.key(0), one)
    with noisy_outputs(jax.random.key(0), 0.1):
        first, second, other = shared.apply(start, one)
    for a, b in ((first, second), (first, other)):
        assert abs(np.corrcoef(a[0], b[0])[0, 1]) < 0.5
        assert np.all(a != b)


def test_recalibration_under_noisy_outputs():
    """The noise is around the call; statistics are those of the noisy activations."""
    model, variables, collect = setup()
    x = BATCHES[0]
    with noisy_outputs(jax.random.key(0), 1.0):
        noisy = jax.jit(partial(collect_statistics, model))(variables, x)
    clean = collect(variables, x)
    ratio = noisy["norm_0"]["var"].sum() / clean["norm_0"]["var"].sum()
    mean = clean["norm_0"]["mean"]
    power = jnp.mean(jnp.square(mean) + clean["norm_0"]["var"])
    expected = 1 + power * len(mean) / clean["norm_0"]["var"].sum()
    np.testing.assert_allclose(ratio, expected, rtol=0.1)


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(3, name="dense")
        return nn.remat(Inside)(name="inside")(dense(dense(x)))


class Inside(nn.Module):
    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(3, name="dense")
        return dense(dense(x))


@pytest.mark.slow
def test_passes_in_one_context_have_the_same_noise():
    model, x = Pair(), jnp.ones((2, 3))
    variables = model.init(jax.random.key(0), x)
    with noisy_outputs(jax.random.key(1), 0.1):
        first = model.apply(variables, x)
        with pytest.raises(Exception, match="shape"):
            model.apply(variables, x[:, :2])
        np.testing.assert_array_equal(model.apply(variables, x), first)
        bound = model.bind(variables)
        np.testing.assert_array_equal(bound(x), first)
        assert_close(jax.jit(model.apply)(variables, x), first, 1e-6)
        grad = jax.jit(jax.value_and_grad(lambda v: model.apply(v, x).sum()))
        assert_close(grad(variables)[0], first.sum(), 1e-6)
    with noisy_outputs(jax.random.key(1), 0.1):
        np.testing.assert_array_equal(model.apply(variables, x), first)
