"""Noise models: their distributions, composition, transforms and errors."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from unitnorm_jax.contrib.noise_aware_batch_norm import (
    additive_noise,
    chain_noise,
    drift_noise,
    multiplicative_noise,
    output_noise,
    quantization_noise,
)

KEY = jax.random.key(0)
SIZE = 20_000
PARAMS = {
    "conv": {"kernel": jnp.linspace(-1, 3, SIZE), "bias": jnp.arange(4.0)},
    "norm": {"scale": jnp.ones(4)},
    "dense": {"kernel": jnp.linspace(0.1, 0.3, SIZE).reshape(-1, 2)},
}
RANDOM = {
    "additive": (additive_noise(0.05), lambda w: (0 * w + 0.05 * np.ptp(w), w)),
    "multiplicative": (multiplicative_noise(0.3), lambda w: (0.3 * np.abs(w), w)),
}


@pytest.mark.parametrize("name", RANDOM)
def test_noise_is_normal_with_the_deviation_it_says(name):
    noise, expected = RANDOM[name]
    noisy = jax.jit(noise)(KEY, PARAMS)
    draws = []
    for layer in ("conv", "dense"):
        w = np.asarray(PARAMS[layer]["kernel"], np.float64)
        std, mean = expected(w)
        some = std.ravel() > 0
        z = (np.asarray(noisy[layer]["kernel"], np.float64) - mean).ravel()[some] / std.ravel()[
            some
        ]
        assert stats.kstest(z, "norm").pvalue > 1e-3
        draws.append(z)
    # Each layer has draws of its own.
    assert abs(np.corrcoef(*draws)[0, 1]) < 0.05


def test_drift():
    noisy = jax.jit(drift_noise(1e4, exponent=0.05, spread=0.02))(KEY, PARAMS)
    ratio = np.asarray(noisy["conv"]["kernel"] / PARAMS["conv"]["kernel"], np.float64)
    nu = -np.log(ratio) / np.log(1e4)
    assert stats.kstest((nu - 0.05) / 0.02, "norm").pvalue > 1e-3
    still = drift_noise(1, exponent=0.05, spread=0.02)(KEY, PARAMS)
    np.testing.assert_allclose(still["conv"]["kernel"], PARAMS["conv"]["kernel"], rtol=1e-6)
    even = drift_noise(1e4, exponent=0.25)(KEY, PARAMS)
    np.testing.assert_allclose(even["conv"]["kernel"], PARAMS["conv"]["kernel"] / 10, rtol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_quantize(bits):
    for layer in ("conv", "dense"):
        w = np.asarray(PARAMS[layer]["kernel"], np.float64)
        q = np.asarray(quantization_noise(bits)(KEY, PARAMS)[layer]["kernel"], np.float64)
        top, levels = np.abs(w).max(), 2**bits - 1
        grid = np.linspace(-top, top, levels)
        nearest = np.abs(w.reshape(-1, 1) - grid).min(1)
        np.testing.assert_allclose(np.abs(q - w).ravel(), nearest, atol=2e-6)
        assert np.abs(q.reshape(-1, 1) - grid).min(1).max() < 1e-6
    zero = {"kernel": jnp.zeros((2, 3))}
    np.testing.assert_array_equal(quantization_noise(bits)(KEY, zero)["kernel"], 0)


def test_everything_but_kernels_is_digital():
    for noise in (
        RANDOM["additive"][0],
        drift_noise(10.0),
        quantization_noise(3),
        RANDOM["multiplicative"][0],
    ):
        noisy = noise(KEY, PARAMS)
        assert jax.tree.structure(noisy) == jax.tree.structure(PARAMS)
        for layer, name in (("conv", "bias"), ("norm", "scale")):
            assert noisy[layer][name] is PARAMS[layer][name]
    only = additive_noise(0.1, select=lambda path: path == ("norm", "scale"))
    noisy = only(KEY, {**PARAMS, "norm": {"scale": jnp.arange(4.0)}})
    assert noisy["conv"]["kernel"] is PARAMS["conv"]["kernel"]
    assert np.all(noisy["norm"]["scale"] != jnp.arange(4.0))


def test_static_and_dynamic():
    """The same key is the same chip; a key for every pass is noise in time."""
    noise = additive_noise(0.1)
    run = jax.jit(lambda step: noise(jax.random.fold_in(KEY, step), PARAMS)["conv"]["kernel"])
    np.testing.assert_array_equal(run(0), run(0))
    assert np.mean(run(0) == run(1)) < 0.01


def test_chain():
    both = chain_noise(quantization_noise(4), additive_noise(0.02), multiplicative_noise(0.1))
    keys = [jax.random.fold_in(KEY, i) for i in range(3)]
    expected = quantization_noise(4)(keys[0], PARAMS)
    expected = additive_noise(0.02)(keys[1], expected)
    expected = multiplicative_noise(0.1)(keys[2], expected)
    jax.tree.map(np.testing.assert_array_equal, both(KEY, PARAMS), expected)
    jax.tree.map(np.testing.assert_array_equal, chain_noise()(KEY, PARAMS), PARAMS)


def test_output_noise():
    y = jnp.concatenate([jnp.full(SIZE, 3.0), jnp.full(SIZE, -4.0)])
    noisy = jax.jit(output_noise)(KEY, y, 0.1)
    z = np.asarray(noisy - y, np.float64) / (0.1 * np.sqrt(12.5))
    assert stats.kstest(z, "norm").pvalue > 1e-3
    half = output_noise(KEY, (1e3 * y).astype(jnp.float16), 0.1)  # whose squares overflow
    assert half.dtype == jnp.float16
    assert np.isfinite(half).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        additive_noise,
        multiplicative_noise,
        functools.partial(drift_noise, spread=0.1),
        quantization_noise,
    ],
)
def test_strengths_can_be_traced_and_mapped(make):
    """One program for a sweep; many chips at once."""
    params = {"kernel": jnp.linspace(-1, 1, 12)}
    strengths = jnp.array([2.0, 3.0, 4.0])
    keys = jax.random.split(KEY, 3)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(strength, key):
        return make(strength)(key, params)["kernel"]

    each = [run(s, k) for s, k in zip(strengths, keys, strict=True)]
    mapped = jax.vmap(run)(strengths, keys)
    np.testing.assert_allclose(mapped, jnp.stack(each), rtol=1e-6)
    direct = make(3.0)(keys[1], params)["kernel"]
    np.testing.assert_allclose(direct, each[1], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_dtype_is_kept(dtype, x64):
    params = {"kernel": jnp.linspace(-1, 1, 12).astype(dtype)}
    noises = (
        additive_noise(0.1),
        multiplicative_noise(0.1),
        drift_noise(10.0, spread=0.1),
        quantization_noise(3),
    )
    for noise in noises:
        assert noise(KEY, params)["kernel"].dtype == dtype


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: additive_noise(-0.1), r"`strength` \(=-0.1\) must be finite and not negative"),
        (lambda: multiplicative_noise(float("nan")), r"`strength` \(=nan\) must be finite"),
        (lambda: output_noise(KEY, jnp.ones(3), -1), r"`strength` \(=-1\) must be finite"),
        (lambda: drift_noise(0.5), r"`time` \(=0.5\) must be finite and at least 1"),
        (lambda: drift_noise(2.0, spread=-1), r"`spread` \(=-1\) must be finite and not negative"),
        (lambda: quantization_noise(1), r"`bits` \(=1\) must be at least 2"),
        (
            lambda: quantization_noise(2)(KEY, {"norm": {"scale": jnp.ones(2)}}),
            "`select` chooses none of the parameters, .* paths are norm/scale. By default",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def only(noise, w):
    return noise(KEY, {"kernel": w})["kernel"]


NOISES = {
    "additive": additive_noise(0.1),
    "multiplicative": multiplicative_noise(0.1),
    "drift": drift_noise(1e5, spread=0.01),
    "quantize": quantization_noise(17),
    "quantize to 8": quantization_noise(8),
    "chain": chain_noise(additive_noise(0.1), drift_noise(10.0)),
}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(noise, dtype):
    """A time of 1e5 and 2^16 levels are infinite in float16, and so is a range of 1e5."""
    w = jnp.linspace(-5e4, 5e4, 1000).astype(dtype)
    out = only(noise, w)
    expected = only(noise, w.astype(jnp.float32))
    assert out.dtype == dtype
    if noise is not NOISES["chain"]:  # which rounds in between
        expected = expected.astype(dtype)
        np.testing.assert_array_equal(out, expected)
    assert float(jnp.abs(out).max()) > 1e4


@pytest.mark.parametrize("bits", [2, 8, 17, 24, 25, 200])
@pytest.mark.parametrize("size", [1e-37, 1.0, 3e38])
def test_levels_of_any_number_and_size(bits, size):
    """None is above max |w|, and the error is half a step at most."""
    w = (size * np.random.default_rng(0).uniform(-1, 1, 1000)).astype(np.float32)
    out = np.asarray(only(quantization_noise(bits), jnp.asarray(w)), np.float64)
    top = np.abs(w).max().astype(np.float64)
    assert np.abs(out).max() <= top
    step = top / (2.0 ** (bits - 1) - 1)
    tiny = np.finfo(np.float32).tiny  # below it numbers are taken for 0
    assert np.abs(out - w).max() <= 0.5 * step + 2e-7 * top + tiny


def test_a_traced_number_of_bits_is_rounded_down():
    w = jnp.linspace(-1, 1, 101)
    traced = jax.jit(lambda bits: only(quantization_noise(bits), w))
    np.testing.assert_allclose(traced(2.5), only(quantization_noise(2), w), atol=1e-7)
    np.testing.assert_allclose(traced(5), only(quantization_noise(5), w), atol=1e-7)


def test_nan_shows():
    w = jnp.asarray([1.0, np.nan, 0.2])
    assert np.isnan(only(quantization_noise(4), w)).all()


def test_weights_that_are_not_floating_are_refused():
    with pytest.raises(ValueError, match="`select` chooses kernel, which is int8: noise is for"):
        only(additive_noise(0.1), jnp.ones(3, jnp.int8))


def test_the_range_of_large_weights():
    w = jnp.asarray([-3e38, 3e38])
    assert np.isfinite(only(additive_noise(1e-3), w)).all()
