"""What is not a number shows where the formula has it; what a float cannot hold is not hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import layer, oracle
from tests.functional.unitized_batch_norm_test import each_unit, problem
from tests.oracle import assert_close
from unitnorm_jax import functional
from unitnorm_jax.functional._numerics import reference

each_mode = pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
each_shape = pytest.mark.parametrize("shape", [(6, 2, 2, 4), (6, 4)], ids=["images", "dense"])


def run(x, alpha, train=True, **config):
    """y and the new statistics, from (0, 1)."""
    channels = x.shape[-1]
    stats = functional.BatchStats(jnp.zeros(channels), jnp.ones(channels))
    return functional.unitized_batch_norm(
        jnp.asarray(x), stats, jnp.asarray(alpha), use_running_average=not train, **config
    )


@each_unit
@each_mode
@each_shape
def test_nan_is_where_the_formula_has_it(shape, train, unit):
    """alpha 0: where nn.BatchNorm has it. Elsewhere the norm of the sample is NaN, so all of it."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x[(*(2, 1, 1)[: len(shape) - 1], 1)] = np.nan  # sample 2, channel 1
    alpha = np.array([0.0, 0.0, 0.5, 1.0], np.float32)
    y, stats = run(x, alpha, train, unit=unit)

    bad = np.isnan(x)
    channel = bad.any(tuple(range(x.ndim - 1)))  # of the statistics
    norm = bad.any(-1, keepdims=True) if unit == "position" or len(shape) == 2 else None
    if norm is None:
        norm = bad.any((1, 2, 3), keepdims=True)
    where_batch_norm = np.broadcast_to(channel, shape) if train else bad
    where_norm = np.broadcast_to(True if train else norm, shape) & (alpha != 0)
    np.testing.assert_array_equal(np.isnan(y), where_batch_norm | where_norm)
    if train:
        np.testing.assert_array_equal(np.isnan(stats.mean), channel)
        np.testing.assert_array_equal(np.isnan(stats.var), channel)


def test_gradient_of_alpha_at_zero_is_that_of_the_formula():
    """alpha = 0 hides a NaN of the norm, not the derivative."""
    for alpha in (np.zeros(5, np.float32), np.array([0, 0.5, 0, 1, 0], np.float32)):
        inputs = problem((4, 3, 2, 5))
        inputs["params"]["alpha"] = alpha
        *_, grads = layer.value_and_grads(**inputs, use_running_average=False)
        _, expected = oracle.value_and_grads(**inputs, use_running_average=False)
        assert_close(grads["alpha"], expected["alpha"], 1e-5)


@each_unit
@pytest.mark.parametrize("size", [1e18, 1e20, 1e37])
def test_sums_that_overflow_are_not_hidden(size, unit):
    """Right where float32 holds the squares, else not finite."""
    x = np.float32(size) * np.random.default_rng(0).standard_normal((8, 4, 6)).astype(np.float32)
    y, stats = run(x, np.ones(6, np.float32), unit=unit, epsilon=0.0)
    if size < 1e19:
        small, _ = run(x / np.float32(size), np.ones(6, np.float32), unit=unit, epsilon=0.0)
        assert_close(y, small, 1e-5)
    else:
        assert not np.isfinite(stats.var).any()
        assert np.isnan(y).all()


def test_squares_that_overflow_about_zero_are_taken_about_the_mean():
    x = 1e20 + 1e15 * np.random.default_rng(0).standard_normal((8, 4, 4, 6))
    y, stats = run(x.astype(np.float32), np.zeros(6, np.float32))
    z = x.astype(np.float32).astype(float)
    assert_close(y, (z - z.mean((0, 1, 2))) / z.std((0, 1, 2)), 1e-5)
    assert_close(stats.var, 0.99 + 0.01 * z.var((0, 1, 2)), 1e-5)


def test_a_squared_norm_that_overflows_at_inference_shows():
    x = np.full((2, 3, 4), 1e25, np.float32)
    y, _ = run(x, np.array([0, 1, 1, 1], np.float32), train=False)
    assert np.isfinite(y[..., 0]).all()
    assert np.isnan(y[..., 1:]).all()


@pytest.mark.parametrize("unit", ["reference", "sample", "rms", 0.3])
@pytest.mark.parametrize(
    ("mean", "std", "epsilon"),
    [(6e-3, 1e-6, 1e-5), (0.06, 1e-5, 1e-3), (6e-3, 6e-5, 1e-5), (3e-3, 1e-7, 1e-5)],
)
def test_variances_far_below_epsilon(mean, std, epsilon, unit):
    """Beside epsilon the variance is exact about zero; the norm made of it is not."""
    rng = np.random.default_rng(0)
    x = (mean + std * rng.standard_normal((16, 16, 16, 4))).astype(np.float32)
    alpha = np.array([1, 0.5, 0.9, 1], np.float32)
    y, _ = run(x, alpha, unit=unit, epsilon=epsilon)
    zero, one = np.zeros(4), np.ones(4)
    expected = reference.unitized_batch_norm(
        x.astype(float), zero, one, alpha, use_running_average=False, unit=unit, epsilon=epsilon
    )
    assert_close(y, expected.y, 1e-5)


@pytest.mark.parametrize("shape", [(576, 1), (36, 16, 1), (4096, 1), (4096, 16, 1), (300, 2, 3, 4)])
@pytest.mark.parametrize(
    ("base", "other"), [(1000, 1004), (100, 101), (1, 1.0078125), (3e4, 30208)]
)
@pytest.mark.parametrize("unit", ["rms", "sample"])
def test_bfloat16_has_bounds(shape, base, other, unit):
    """No value of M lies more than sqrt(M) deviations from their mean; xhat / norm is at most 1."""
    x = jnp.full(shape, base, jnp.bfloat16).at[(0,) * (len(shape) - 1)].set(other)
    count, size = np.prod(shape[:-1]), np.prod(shape[1:])
    for alpha in (0.0, 1.0):
        y, _ = run(x, np.full(shape[-1], alpha, np.float32), unit=unit, dtype=jnp.float32)
        radius = np.sqrt(size) if unit == "rms" else 1.0
        assert np.abs(y).max() <= 1.001 * (radius if alpha else np.sqrt(count))


@pytest.mark.parametrize("shape", [(10_000, 3), (70_000, 3), (35_000, 2, 3)])
def test_float16_rows_do_not_overflow(shape):
    x = (3 * np.random.default_rng(0).standard_normal(shape)).astype(np.float16)
    y, stats = run(x, np.zeros(3, np.float32), momentum=0.0)
    z = x.astype(float)
    axes = tuple(range(x.ndim - 1))
    assert y.dtype == np.float16
    assert_close(stats.var, z.var(axes), 1e-4)
    assert_close(y, (z - z.mean(axes)) / z.std(axes), 1e-3)


@pytest.mark.parametrize("unit", ["reference", "position"])
def test_nan_reaches_gradients_of_the_loss(unit):
    x = jnp.ones((4, 3)).at[0, 0].set(jnp.nan)
    loss = lambda alpha: jnp.sum(run(x, alpha, unit=unit)[0])  # noqa: E731
    assert np.isnan(loss(jnp.zeros(3)))
    assert np.isnan(jax.grad(lambda x: jnp.sum(run(x, jnp.ones(3))[0]))(x)).any()
