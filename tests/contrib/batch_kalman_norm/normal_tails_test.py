"""Moments of the rectified normal in its tails, against quadrature in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

from unitnorm_jax.contrib.batch_kalman_norm import Moments, relu_moments
from unitnorm_jax.contrib.norm_prop import max_pool_moments


def partial_moment(n, b):
    """``E max(Z - b, 0)^n / phi(b)``, the integral of t^n exp(-t^2/2 - b t): no differences."""
    c = 1 / (1 + b)
    area, _ = integrate.quad(
        lambda u: u**n * np.exp(-((u * c) ** 2) / 2 - b * c * u), 0, 80, epsabs=0, limit=200
    )
    return area * c ** (n + 1)


def exact(mean, var):
    """Mean, variance and their derivatives, (2,) and (2, 2)."""
    std = np.sqrt(var)
    a = mean / std
    first, second = (partial_moment(n, abs(a)) for n in (1, 2))
    log_phi = -(mean**2) / (2 * var) - np.log(2 * np.pi) / 2
    phi = np.exp(log_phi)
    if a <= 0:
        spread = np.exp(log_phi + np.log(var)) * (second - phi * first**2)
    else:
        spread = var * (1 - phi * (second - 2 * -a * first + phi * first**2))
    scaled = max(a, 0) + phi * first
    slopes = [
        [special.ndtr(a), phi / (2 * std)],
        [2 * std * scaled * special.ndtr(-a), special.ndtr(a) - scaled * phi],
    ]
    return np.array([std * scaled, spread]), np.array(slopes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu_moments_in_the_tails(dtype, x64):
    """At a = -12 the variance was 8 % off; wherever a result is representable it holds."""
    single = dtype == "float32"
    a = np.concatenate([np.linspace(-30, 30, 61), [-12.0, -1e-3, 1e-3]])
    std = 10 ** np.random.default_rng(0).uniform(-2, 2, len(a))
    mean, var = (a * std).astype(dtype), (std**2).astype(dtype)

    def stacked(mean, var):
        return jnp.stack(relu_moments(Moments(mean, var)))

    args = jnp.asarray(mean), jnp.asarray(var)
    out = jax.jit(stacked)(*args).T
    slopes = jnp.stack(jax.jit(jax.vmap(jax.jacrev(stacked, (0, 1))))(*args), -1)
    expected = [exact(float(m), float(v)) for m, v in zip(mean, var, strict=True)]
    least = 1e-37 if single else 1e-300
    for actual, desired in (
        (out, np.array([e[0] for e in expected])),
        (slopes, np.array([e[1] for e in expected])),
    ):
        seen = np.abs(desired) > least
        np.testing.assert_allclose(
            np.asarray(actual)[seen], desired[seen], rtol=1e-5 if single else 1e-11
        )
        assert (np.abs(np.asarray(actual)[~seen]) < 10 * least).all()


@pytest.mark.slow
def test_relu_moments_of_any_size():
    mean = jnp.asarray([1e30, -1e30, 1e38, 1e-30, 0.0])
    var = jnp.asarray([0.0, 1e-38, 1e38, 1e-36, 1e-30])
    out, pull = jax.vjp(lambda m, v: relu_moments(Moments(m, v)), mean, var)
    np.testing.assert_allclose(out.mean, [1e30, 0, 1e38, 3.98942e-19, 3.98942e-16], rtol=1e-5)
    assert all(np.isfinite(g).all() for g in pull(Moments(0 * mean + 1, 0 * mean + 1)))


def test_half_precision_is_computed_in_float32():
    moments = Moments(*(jnp.asarray(a, jnp.float16) for a in ([-300.0, 300.0], [9e4 / 2, 2.0])))
    wide = relu_moments(Moments(*(m.astype(jnp.float32) for m in moments)))
    for half, single in zip(relu_moments(moments), wide, strict=True):
        assert half.dtype == jnp.float16
        np.testing.assert_array_equal(half, single.astype(jnp.float16))


def test_nan_shows():
    nan, one = jnp.asarray([jnp.nan]), jnp.ones(1)
    for moments in (Moments(nan, one), Moments(one, nan)):
        out = relu_moments(moments)
        assert np.isnan(out.mean).all()
        assert np.isnan(out.var).all()


def test_the_largest_of_very_many():
    """Of 10^17 Phi rounds to 1 where the largest lies; by inversion of its logarithm instead."""
    u = (np.arange(200_000) + 0.5) / 200_000
    for count in (10**6, 10**12, 10**17):
        z = -special.ndtri(-np.expm1(np.log(u) / count))
        mean, std = max_pool_moments(count)
        np.testing.assert_allclose((mean, std), (z.mean(), z.std()), rtol=(2e-4))
