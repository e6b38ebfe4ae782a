"""Batch normalization folded into a kernel, and the penalty that it implies."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from tests.oracle import assert_close
from unitnorm_jax.contrib.implied_penalty import implied_penalty
from unitnorm_jax.functional import fold_batch_norm

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(5, 5)) * np.array([0.1, 0.5, 1, 2, 4])
X = RNG.normal(size=(300, 5)) @ MIX + RNG.normal(size=5)
SIGMA = np.cov(X.T, bias=True)
GAMMA = np.array([0.5, -2.0, 3.0])


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_constraint_holds_exactly_for_every_kernel(size, x64):
    rng = np.random.default_rng(1)
    kernel = size * rng.normal(size=(5, 3))
    u = X @ kernel
    v, _ = fold_batch_norm(*map(jnp.asarray, (kernel, u.mean(0), u.var(0), GAMMA)), epsilon=0.0)
    assert_close(np.einsum("iu,ij,ju->u", v, SIGMA, v), GAMMA**2, 1e-13)


def test_the_constraint_of_a_convolution(x64):
    """Sigma is the covariance of all patches, padding included."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 5, 5, 2)) + 1
    kernel = rng.normal(size=(3, 3, 2, 3))
    u = nn.Conv(3, (3, 3), use_bias=False).apply({"params": {"kernel": kernel}}, x)
    patches = jax.lax.conv_general_dilated_patches(
        jnp.asarray(x), (3, 3), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    sigma = np.cov(np.asarray(patches).reshape(-1, 18).T, bias=True)  # channels first
    v = fold_batch_norm(
        jnp.asarray(kernel), u.mean((0, 1, 2)), u.var((0, 1, 2)), jnp.asarray(GAMMA), epsilon=0.0
    ).kernel
    rows = np.asarray(v).transpose(2, 0, 1, 3).reshape(18, 3)
    assert_close(np.einsum("iu,ij,ju->u", rows, sigma, rows), GAMMA**2, 1e-12)


@pytest.mark.parametrize("options", [{}, {"use_scale": False}, {"use_bias": False}], ids=str)
@pytest.mark.parametrize("layer", ["dense", "conv", "dense without bias"])
def test_the_folded_layer_computes_the_same(layer, options):
    rng = np.random.default_rng(1)
    if layer == "conv":
        make, x = functools.partial(nn.Conv, 3, (3, 3)), rng.normal(size=(4, 5, 5, 2))
    else:
        make, x = functools.partial(nn.Dense, 3, use_bias=layer == "dense"), X
    x = jnp.asarray(x, jnp.float32)
    net = nn.Sequential([make(), nn.BatchNorm(use_running_average=True, epsilon=0.1, **options)])
    variables = net.init(jax.random.key(0), x)
    variables = jax.tree.map(
        lambda a: a + jnp.asarray(rng.uniform(0.1, 2, a.shape), a.dtype), variables
    )
    before, norm = (variables["params"].get(f"layers_{i}", {}) for i in range(2))
    stats = variables["batch_stats"]["layers_1"]
    v, b = fold_batch_norm(
        before["kernel"], **stats, **norm, kernel_bias=before.get("bias"), epsilon=0.1
    )
    folded = make(use_bias=True).apply({"params": {"kernel": v, "bias": b}}, x)
    assert_close(folded, net.apply(variables, x), 3e-6)


def covariances(noise):
    """Of a regression on noisy inputs: Sigma + noise^2 I, and with the target."""
    target = np.tanh(X @ np.array([1.0, -1, 0.5, 0.2, 0.1]))
    return SIGMA + noise**2 * np.eye(5), np.cov(X.T, target, bias=True)[-1, :-1]


@pytest.mark.parametrize("noise", [0.0, 0.7])
@pytest.mark.parametrize("gamma", [0.2, 1.5])
def test_regression_in_closed_form(noise, gamma, x64):
    """Least squares under v' S v = gamma^2: v = gamma S^-1 c / rho, lambda = rho / gamma - 1."""
    sigma, c = covariances(noise)
    solution = np.linalg.solve(sigma, c)
    rho = np.sqrt(c @ solution)
    w = 7.3 * solution  # whatever its size
    v, _ = fold_batch_norm(
        jnp.asarray(w)[:, None],
        jnp.zeros(1),
        jnp.asarray([w @ sigma @ w]),
        jnp.array([gamma]),
        epsilon=0.0,
    )
    assert_close(v[:, 0], gamma * solution / rho, 1e-12)
    gradient = jax.grad(lambda v: (v.T @ sigma @ v - 2 * c[None] @ v).sum())(v)
    implied = implied_penalty(v, gradient, jnp.array([gamma]))
    assert_close(implied.multiplier, [rho / gamma - 1], 1e-12)
    squared = np.sum(np.square(v))
    assert_close(implied.weight_decay, [(rho / gamma - 1) * gamma**2 / squared], 1e-12)
    # The solution of the penalized problem, without any constraint, is v.
    assert_close(np.linalg.solve(sigma * (1 + implied.multiplier[0]), c), v[:, 0], 1e-12)


def test_noise_is_more_decay_where_the_inputs_are_isotropic(x64):
    """weight_decay = multiplier (s^2 + t^2), and |v| = gamma / sqrt(s^2 + t^2)."""
    c, s, gamma = np.array([0.3, -0.2]), 0.8, 0.25
    for t in (0.0, 0.5, 1.0):
        sigma = (s**2 + t**2) * np.eye(2)
        w = np.linalg.solve(sigma, c)
        v = fold_batch_norm(
            jnp.asarray(w)[:, None],
            jnp.zeros(1),
            jnp.asarray([w @ sigma @ w]),
            jnp.array([gamma]),
            epsilon=0.0,
        ).kernel
        gradient = 2 * (sigma @ v - c[:, None])
        implied = implied_penalty(v, gradient, jnp.array([gamma]))
        assert_close(implied.weight_decay, implied.multiplier * (s**2 + t**2), 1e-12)
        assert np.linalg.norm(v) == pytest.approx(gamma / np.hypot(s, t), rel=1e-12)


@pytest.mark.parametrize("trained_scale", [False, True])
def test_a_trained_batch_norm_is_stationary_under_its_implied_penalty(trained_scale, x64):
    """Logistic regression through ``nn.BatchNorm``, minimized to its end by scipy."""
    rng = np.random.default_rng(1)
    signal = (X[:, 4] - X[:, 4].mean()) / X[:, 4].std()
    labels = jnp.asarray(signal + rng.normal(size=300) > 0)
    white = np.linalg.inv(np.linalg.cholesky(SIGMA)).T  # coordinates in which BFGS gets there
    norm = nn.BatchNorm(use_running_average=False, epsilon=0.0, use_scale=trained_scale)

    def loss_of(u):
        return jnp.mean(jax.nn.softplus(jnp.where(labels, -u, u)))

    def loss(flat):
        params = {"bias": flat[5:6]} | ({"scale": flat[6:7]} if trained_scale else {})
        u, _ = norm.apply({"params": params}, X @ white @ flat[:5, None], mutable=["batch_stats"])
        return loss_of(u[:, 0])

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    start = np.concatenate([rng.normal(size=5), [0.0], [1.0] * trained_scale])
    best = minimize(value_and_grad, start, jac=True, method="BFGS", options={"gtol": 1e-10})
    w, bias = white @ best.x[:5], best.x[5:6]
    gamma = jnp.asarray(best.x[6:7] if trained_scale else [1.0])
    u = X @ w[:, None]
    v, b = fold_batch_norm(
        *map(jnp.asarray, (w[:, None], u.mean(0), u.var(0), gamma, bias)), epsilon=0.0
    )
    assert float(loss_of((X @ v + b[None])[:, 0])) == pytest.approx(best.fun, rel=1e-10)
    gradient = jax.grad(lambda v: loss_of((X @ v + b[None])[:, 0]))(v)
    implied = implied_penalty(v, gradient, gamma)
    if trained_scale:
        assert abs(float(implied.multiplier[0])) < 1e-7
        assert np.abs(gradient).max() < 1e-6
    else:
        assert float(implied.multiplier[0]) > 1e-2
        size = np.abs(gradient).max()
        assert size > 1e-2
        residual = gradient + 2 * implied.multiplier[None] * (SIGMA @ v)
        assert np.abs(residual).max() < 1e-6 * size


def test_dead_units_are_pulled_nowhere():
    implied = implied_penalty(jnp.zeros((2, 3)), jnp.ones((2, 3)), jnp.zeros(3))
    np.testing.assert_array_equal(np.stack(implied), 0)


ONES = jnp.ones(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fold_batch_norm(jnp.ones((2, 3)), ONES, ONES, epsilon=-1.0),
            r"`epsilon` \(=-1.0\) must be finite and not negative",
        ),
        (lambda: fold_batch_norm(jnp.ones((2, 4)), ONES, jnp.ones(4)), r"`mean` has shape \(3,\)"),
        (
            lambda: fold_batch_norm(jnp.ones((2, 3)), ONES, ONES, jnp.ones(2)),
            r"`scale` has shape \(2,\)",
        ),
        (
            lambda: implied_penalty(jnp.ones((2, 3)), jnp.ones((3, 2))),
            r"`gradient` has shape \(3, 2\); it must be that of `folded_kernel`: \(2, 3\)",
        ),
        (
            lambda: implied_penalty(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones(2)),
            r"`scale` has shape \(2,\)",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def moved(variables, seed=3):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: a + jnp.asarray(rng.uniform(0.1, 2, a.shape), a.dtype), variables)


LINEAR = {  # a layer, its input's shape, axes of the normalization, and of the kernel's units
    "transposed kernel": (nn.ConvTranspose(3, (3, 3), transpose_kernel=True), (2, 4, 4, 3), -1, -2),
    "transposed": (nn.ConvTranspose(3, (2, 2), strides=(2, 2)), (2, 4, 4, 3), -1, -1),
    "grouped": (nn.Conv(6, (3, 3), feature_group_count=3), (2, 4, 4, 3), -1, -1),
    "depthwise": (nn.Conv(3, (3, 3), feature_group_count=3), (2, 4, 4, 3), -1, -1),
    "dilated": (nn.Conv(3, (3, 3), kernel_dilation=2), (2, 6, 6, 3), -1, -1),
    "general": (nn.DenseGeneral((3, 3)), (5, 3), (-2, -1), (-2, -1)),
    "general, several inputs": (nn.DenseGeneral(3, axis=(-2, -1)), (5, 3, 3), -1, -1),
    "einsum": (nn.Einsum((3, 3, 3), "bi,oip->bop"), (5, 3), (-2, -1), (0, 2)),
    "einsum, permuted": (nn.Einsum((3, 3, 3), "bi,oip->bpo"), (5, 3), (-2, -1), (2, 0)),
}


@pytest.mark.parametrize(("layer", "shape", "axis", "units"), LINEAR.values(), ids=LINEAR)
def test_any_linear_layer(layer, shape, axis, units):
    """All sizes are 3, so that no shape tells which axes are the outputs'."""
    x = jax.random.normal(jax.random.key(0), shape)
    norm = nn.BatchNorm(use_running_average=True, axis=axis)
    params = moved(layer.init(jax.random.key(1), x))["params"]
    y = layer.apply({"params": params}, x)
    variables = moved(norm.init(jax.random.key(2), y))
    folded = fold_batch_norm(
        params["kernel"],
        **variables["batch_stats"],
        **variables["params"],
        kernel_bias=params["bias"],
        feature_axes=units,
    )
    actual = layer.apply({"params": folded._asdict()}, x)
    assert_close(actual, norm.apply(variables, y), 1e-5)


def test_implied_penalty_along_other_axes(x64):
    rng = np.random.default_rng(0)
    v, g, scale = (jnp.asarray(rng.normal(size=s)) for s in ((2, 4, 3), (2, 4, 3), (3,)))
    expected = implied_penalty(v, g, scale)
    turned = implied_penalty(v.swapaxes(1, 2), g.swapaxes(1, 2), scale, feature_axes=-2)
    jax.tree.map(functools.partial(assert_close, tol=1e-14), turned, expected)
    squared = np.sum(np.square(v), (0, 1))
    assert_close(expected.weight_decay, -np.sum(v * g, (0, 1)) / 2 / squared, 1e-13)
    assert_close(expected.multiplier, -np.sum(v * g, (0, 1)) / 2 / np.square(scale), 1e-13)


def test_implied_penalty_of_any_size_and_of_none():
    """Squares overflow and underflow; a unit of NaN is not one of 0."""
    v = jnp.asarray([[1e25, 1e-25, 0.0, np.nan], [2e25, 2e-25, 0.0, 1.0]], jnp.float32)
    g = jnp.asarray([[-4e10, -4e-10, 1.0, 1.0], [-3e10, -3e-10, 1.0, 1.0]], jnp.float32)
    scale = jnp.asarray([1e25, 1e-15, 0.0, 1.0], jnp.float32)
    implied = implied_penalty(v, g, scale)
    np.testing.assert_allclose(implied.weight_decay, [1e-15, 1e15, 0, np.nan], rtol=1e-6)
    np.testing.assert_allclose(implied.multiplier, [5e-15, 5e-5, 0, np.nan], rtol=1e-6)


def test_half_precision_is_folded_in_float32():
    kernel = jnp.full((2, 2), 300.0, jnp.float16)
    stats = jnp.asarray([1.0, 2.0], jnp.float16)
    folded = fold_batch_norm(kernel, stats, 0 * stats)
    assert folded.kernel.dtype == jnp.float16
    assert_close(folded.bias, -np.array([1.0, 2.0]) / np.sqrt(1e-5), 1e-3)
