"""Predicted moments against scipy, sampling, and convolutions of maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from tests.oracle import assert_close
from unitnorm_jax.contrib.batch_kalman_norm import (
    Moments,
    add_moments,
    linear_moments,
    normalized_moments,
    relu_moments,
    sampled_moments,
)


def moments_of(*rows):
    return Moments(*(jnp.asarray([row]) for row in rows))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_relu_moments_by_quadrature(dtype, x64):
    mean = np.array([0.0, 1e-3, 0.7, -0.7, 3.0, -3.0, 6.0, -6.0, 40.0, 1e4, 0.2])
    std = np.array([1.0, 1.0, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 30.0])
    expected = []
    for m, s in zip(mean, std, strict=True):
        first = integrate.quad(
            lambda z, m=m, s=s: (m + s * z) * stats.norm.pdf(z),
            *(max(-m / s, -12), 12),
            epsabs=0,
            epsrel=1e-13,
        )[0]
        # About its mean, for the digits that second - first^2 loses.
        spread = integrate.quad(
            lambda z, m=m, s=s, e=first: (max(m + s * z, 0) - e) ** 2 * stats.norm.pdf(z),
            *(-12, 12),
            points=[min(max(-m / s, -11.0), 11.0)],
            epsabs=0,
            epsrel=1e-12,
        )[0]
        expected.append((first, spread))
    out = relu_moments(moments_of(mean.astype(dtype), (std**2).astype(dtype)))
    tol = {"rtol": 1e-9, "atol": 1e-14} if dtype == "float64" else {"rtol": 1e-4, "atol": 1e-7}
    np.testing.assert_allclose(out.mean[0], [e[0] for e in expected], **tol)
    np.testing.assert_allclose(out.var[0], [e[1] for e in expected], **tol)


def test_relu_moments_have_the_gradient_of_their_formula(x64):
    """Above all at 0, where biases start and an absolute value has no derivative."""

    def formula(mean, var):
        a = mean / jnp.sqrt(var)
        cdf, pdf = jax.scipy.stats.norm.cdf(a), jax.scipy.stats.norm.pdf(a)
        e = mean * cdf + jnp.sqrt(var) * pdf
        return jnp.stack([e, (mean**2 + var) * cdf + mean * jnp.sqrt(var) * pdf - e**2])

    def ours(mean, var):
        out = relu_moments(Moments(mean[None, None], var[None, None]))
        return jnp.stack(out).ravel()

    @jax.jit
    @jax.vmap
    def jacobians(mean):
        return [jax.jacobian(f, (0, 1))(mean, jnp.asarray(1.7)) for f in (ours, formula)]

    for actual, desired in zip(*jacobians(jnp.array([-2.0, 0.0, 0.3, 5.0])), strict=True):
        np.testing.assert_allclose(actual, desired, rtol=1e-10, atol=1e-12)


def test_relu_moments_without_variance():
    moments = moments_of([2.0, -2.0, 0.0], [0.0, 0.0, 0.0])
    mean, var = relu_moments(moments)
    np.testing.assert_allclose(mean, [[2.0, 0.0, 0.0]], atol=1e-19)
    np.testing.assert_array_equal(var, [[0.0, 0.0, 0.0]])
    grads = jax.grad(lambda m: sum(map(jnp.sum, relu_moments(m))))(moments)
    assert all(np.isfinite(g).all() for g in grads)


def test_normalized_moments(x64):
    rng = np.random.default_rng(0)
    moments = Moments(*map(jnp.asarray, (rng.normal(size=(2, 3)), rng.uniform(1, 2, (2, 3)))))
    scale, bias = map(jnp.asarray, rng.normal(size=(2, 3)))
    mean, var = map(np.asarray, moments)
    z = mean + np.sqrt(var) * np.array([-1.0, 1.0])[:, None, None]
    y = np.asarray(scale) * (z - mean) / np.sqrt(var + 0.3) + np.asarray(bias)
    out = normalized_moments(moments, scale, bias, epsilon=0.3)
    assert_close(out.mean, y.mean(0), 1e-12)
    assert_close(out.var, y.var(0), 1e-12)
    plain = normalized_moments(moments, epsilon=0)
    np.testing.assert_allclose(plain.var, 1.0)
    np.testing.assert_array_equal(plain.mean, 0.0)


LAYERS = [
    ((5, 4), (3, 3), (2, 2), "SAME"),
    ((6, 5), (2, 3), (1, 2), ((2, 0), (1, 3))),
    ((4, 4), (1, 1), (2, 2), "SAME"),
    ((7,), (4,), (3,), "same"),
]


@pytest.mark.parametrize(("spatial", "window", "strides", "padding"), LAYERS)
def test_linear_moments_are_those_of_the_maps(spatial, window, strides, padding, x64):
    """Means and variances of every position by convolution, then moments over positions."""
    rng = np.random.default_rng(1)
    slices, c_in, c_out = 2, 3, 4
    kernel = jnp.asarray(rng.normal(size=(*window, c_in, c_out)))
    bias = jnp.asarray(rng.normal(size=c_out))
    shape = (slices, c_in)
    moments = Moments(*map(jnp.asarray, (rng.normal(size=shape), rng.uniform(0.1, 2, shape))))

    def conv(m, kernel):
        m = np.broadcast_to(
            np.expand_dims(m, tuple(range(1, 1 + len(spatial)))), (slices, *spatial, c_in)
        )
        letters = "HWD"[: len(spatial)]
        return jax.lax.conv_general_dilated(
            jnp.asarray(m),
            kernel,
            strides,
            padding.upper() if isinstance(padding, str) else padding,
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
        ).reshape(slices, -1, c_out)

    means, variances = conv(moments.mean, kernel), conv(moments.var, kernel**2)
    out = linear_moments(
        moments, kernel, bias, spatial_shape=spatial, strides=strides, padding=padding
    )
    assert_close(out.mean, np.asarray(means.mean(1)) + np.asarray(bias), 1e-12)
    assert_close(out.var, variances.mean(1) + means.var(1), 1e-12)


def test_interior_formula_and_dense(x64):
    rng = np.random.default_rng(2)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 2, 4)))
    moments = Moments(*map(jnp.asarray, (rng.normal(size=(2, 2)), rng.uniform(1, 2, (2, 2)))))
    valid = linear_moments(moments, kernel, spatial_shape=(9, 9), padding="VALID")
    total = linear_moments(moments, kernel.sum((0, 1)))
    assert_close(valid.mean, moments.mean @ kernel.sum((0, 1)), 1e-12)
    assert_close(valid.var, moments.var @ (kernel**2).sum((0, 1)), 1e-12)
    assert_close(total.mean, valid.mean, 1e-12)


@pytest.mark.slow
def test_sampling_tends_to_the_deterministic_moments():
    """Two oracles of one another: the Monte Carlo form of the code, and the formulas."""
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 4, 5)).astype(np.float32) / 6)
    moments = Moments(
        jnp.asarray(rng.normal(size=(2, 4)).astype(np.float32)),
        jnp.asarray(rng.uniform(0.2, 2, (2, 4)).astype(np.float32)),
    )

    @jax.jit
    def layer(s):
        return jax.lax.conv_general_dilated(
            jax.nn.relu(s), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    draws, size = 2000, 3
    rng = np.random.default_rng(3)
    noise = jnp.asarray(rng.normal(size=(2, draws, size, size, 4)).astype(np.float32))
    mean, var = (np.asarray(m)[:, None, None, None] for m in moments)
    inputs = jnp.asarray((np.sqrt(var) * np.asarray(noise) + mean).reshape(-1, size, size, 4))
    maps = np.asarray(layer(inputs)).reshape(2, -1, 5)
    exact = linear_moments(relu_moments(moments), kernel, spatial_shape=(size, size))
    assert_close(maps.mean(1), exact.mean, 0.02)
    np.testing.assert_allclose(maps.var(1), exact.var, rtol=0.05)
    one = sampled_moments(moments, noise[:, 0], layer)
    maps = maps.reshape(2, draws, -1, 5)[:, 0]
    assert_close(one.mean, maps.mean(1), 1e-6)
    assert_close(one.var, maps.var(1), 1e-5)


def test_residual_rule():
    a = Moments(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]]))
    b = Moments(jnp.array([[5.0, 6.0, 7.0, 8.0]]), jnp.ones((1, 4)))
    assert add_moments(a, a).mean.tolist() == [[2.0, 4.0]]
    out = add_moments(a, b)
    assert out.mean.tolist() == [[5.0, 7.0, 9.0, 8.0]]
    assert out.var.tolist() == [[1.0, 4.0, 5.0, 1.0]]


MOMENTS = Moments(jnp.zeros((2, 3)), jnp.ones((2, 3)))
KERNEL = jnp.ones((3, 3, 3, 4))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: linear_moments(MOMENTS, jnp.ones((4, 5))), r"\(slices, c_in\), with c_in = 4"),
        (lambda: linear_moments(MOMENTS, KERNEL), r"`spatial_shape` \(=\(\)\) must have one"),
        (
            lambda: linear_moments(MOMENTS, KERNEL, spatial_shape=(4, 4), strides=(1,)),
            r"`strides` \(=\(1,\)\) and `padding` .* one entry for each axis",
        ),
        (
            lambda: linear_moments(MOMENTS, KERNEL, spatial_shape=(2, 4), padding="VALID"),
            r"window \(3, 3\) has no output on an image of shape \(2, 4\) with padding 'VALID'",
        ),
        (
            lambda: sampled_moments(MOMENTS, jnp.ones((2, 3)), jax.nn.relu),
            r"`noise` of shape \(2, 3\) must be .* 2 slices and 3 channels",
        ),
        (
            lambda: add_moments(MOMENTS, Moments(jnp.zeros((2, 4)), jnp.ones((2, 4)))),
            r"shapes \(2, 3\) \(shortcut\) and \(2, 4\) \(branch\) cannot be added",
        ),
    ],
)
def test_bad_arguments(function, message):
    with pytest.raises(ValueError, match=message):
        function()
