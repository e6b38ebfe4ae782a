"""Batch normalization by running estimates: order of updates, bias, and what has no gradient."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contrib.batch_channel_norm.reference import batch_half
from tests.oracle import assert_close
from unitnorm_jax.contrib.estimated_batch_norm import estimated_batch_norm
from unitnorm_jax.functional import BatchStats

RNG = np.random.default_rng(0)
X = (2 + 3 * RNG.standard_normal((4, 3, 5))).astype(np.float32)
MEAN, VAR = RNG.standard_normal(5), RNG.uniform(0.5, 2, 5)
SCALE, BIAS = RNG.standard_normal(5), RNG.standard_normal(5)


def run(x=X, mean=MEAN, var=VAR, scale=SCALE, bias=BIAS, dtype=float, **options):
    x, mean, var, scale, bias = (jnp.asarray(a, dtype) for a in (x, mean, var, scale, bias))
    return estimated_batch_norm(x, BatchStats(mean, var), scale, bias, **options)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
@pytest.mark.parametrize("mask", [None, (4, 3, 1)], ids=["", "mask"])
def test_matches_reference(mask, train, rate, x64):
    mask = None if mask is None else RNG.uniform(size=mask) < 0.5
    options = {"use_running_average": not train, "rate": rate, "epsilon": 1e-3, "mask": mask}
    y, stats = run(**options | {"mask": None if mask is None else jnp.asarray(mask)})
    expected = batch_half(X, MEAN, VAR, SCALE, BIAS, **options)
    valid = np.broadcast_to(True if mask is None else mask, X.shape)
    assert_close(np.where(valid, y, 0), np.where(valid, expected.y, 0), 1e-12)
    assert_close(stats.mean, expected.mean, 1e-12)
    assert_close(stats.var, expected.var, 1e-12)


def test_channels_first(x64):
    options = {"use_running_average": False, "rate": 0.3}
    y, stats = run(**options)
    y1, stats1 = run(x=X.transpose(0, 2, 1), axis=1, **options)
    assert_close(y1.transpose(0, 2, 1), y, 1e-14)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-14), stats1, stats)


def test_rate_zero_is_inference():
    y, stats = run(use_running_average=False, rate=0)
    expected, _ = run(use_running_average=True, rate=0)
    np.testing.assert_array_equal(y, expected)
    assert_close(stats.mean, MEAN, 1e-7)
    assert_close(stats.var, VAR, 1e-7)


def test_the_second_moment_is_about_the_old_mean(x64):
    """At rate 1 the mean is the batch's, and the variance too large by the mean's step squared."""
    _, stats = run(use_running_average=False, rate=1.0)
    step = X.mean((0, 1), dtype=float) - MEAN
    assert_close(stats.var, X.var((0, 1), dtype=float) + step**2, 1e-12)


def test_estimates_of_one_value_at_a_time_reach_the_truth(x64):
    """Batch normalization has no statistics here; after 10 steps the variance is still biased."""
    values = 5 + 3 * np.random.default_rng(1).standard_normal((4000, 1, 1))

    def step(stats, x):
        _, stats = estimated_batch_norm(x, stats, use_running_average=False, rate=0.01)
        return stats, stats

    start = BatchStats(jnp.zeros(1), jnp.ones(1))
    _, path = jax.lax.scan(step, start, jnp.asarray(values))
    mean, var = path.mean[2000:].mean(), path.var[2000:].mean()
    np.testing.assert_allclose((mean, var), (5, 9), rtol=0.05)
    # The estimates fluctuate by sqrt(rate / 2) standard deviations and more.
    assert np.std(path.mean[2000:]) == pytest.approx(3 * np.sqrt(0.01 / 2), rel=0.3)


def test_statistics_are_constants_for_autodiff(x64):
    x, stats = jnp.asarray(X, float), BatchStats(jnp.asarray(MEAN), jnp.asarray(VAR))

    def outputs(x, stats, rate):
        return estimated_batch_norm(x, stats, use_running_average=False, rate=rate)

    (y, new), pull = jax.vjp(outputs, x, stats, 0.3)
    dy, ones = jnp.cos(y), jax.tree.map(jnp.ones_like, new)
    dx, dstats, drate = pull((dy, ones))
    assert_close(dx, np.asarray(dy) / np.sqrt(np.asarray(new.var) + 1e-5), 1e-12)
    assert jax.tree.all(jax.tree.map(lambda a: bool((a == 0).all()), (dstats, drate)))


@given(st.floats(0, 1, width=32), st.floats(-50, 50, width=32))
def test_a_constant_input_pulls_the_estimates_to_it(rate, constant):
    x = np.full((2, 1, 5), constant, np.float32)
    _, stats = run(x=x, dtype=np.float32, use_running_average=False, rate=rate)
    assert_close(stats.mean, (1 - rate) * MEAN + rate * constant, 1e-5)
    assert_close(stats.var, (1 - rate) * VAR + rate * (constant - MEAN) ** 2, 1e-5)


def test_traced_rates_compile_once():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(stats, rate):
        return estimated_batch_norm(x, stats, use_running_average=False, rate=rate)[1]

    x, stats = jnp.asarray(X), BatchStats(jnp.zeros(5), jnp.ones(5))
    for rate in (0.5, 0.25, 0.125):
        stats = step(stats, jnp.float32(rate))
    expected = 0.0
    for rate in (0.5, 0.25, 0.125):
        expected = (1 - rate) * expected + rate * X.mean((0, 1))
    assert_close(stats.mean, expected, 1e-6)


@pytest.mark.parametrize("old", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("new", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("rate", [1.0, 0.5, 1e-3])
def test_blends_keep_the_digits_of_both(rate, old, new):
    """``old + rate * (new - old)`` is 0 where the batch's variance is small beside the old one."""
    z = RNG.choice([-1.0, 1.0], (4, 3, 5)).astype(np.float32)
    x, zeros = np.float32(np.sqrt(new)) * z, np.zeros(5)
    options = {"use_running_average": False, "rate": rate}
    _, stats = run(x=x, mean=zeros, var=np.full(5, old), dtype=np.float32, **options)
    moment = np.square(x.astype(float)).mean((0, 1))
    np.testing.assert_allclose(stats.var, (1 - rate) * old + rate * moment, rtol=1e-6)

    mean = np.full(5, old, np.float32)
    x = np.float32(new) * (1 + 0.1 * z)
    y, stats = run(x=x, mean=mean, scale=np.ones(5), bias=zeros, dtype=np.float32, **options)
    expected = (1 - rate) * old + rate * x.mean((0, 1), dtype=float)
    np.testing.assert_allclose(stats.mean, expected, rtol=1e-6)
    assert_close(y, (x - expected) / np.sqrt(np.asarray(stats.var, float) + 1e-5), 3e-6)
