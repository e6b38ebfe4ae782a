"""Normalization propagation: the layer restated, its constants, its claims."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from tests.oracle import assert_close
from unitnorm_jax.contrib.norm_prop import (
    NormPropConv,
    NormPropDense,
    covariance_bound,
    max_pool_moments,
    norm_prop_activation,
    norm_prop_avg_pool,
    norm_prop_gain,
    norm_prop_kernel,
    norm_prop_max_pool,
    norm_prop_sum,
)

C1, C2 = 0.398942280401433, 0.583819370103549  # of max(0, Z), as printed
RNG = np.random.default_rng(0)


def expectation(f):
    """E f(Z), Z standard normal; 0 is a kink of ReLU."""
    return sum(
        integrate.quad(lambda z: f(z) * stats.norm.pdf(z), *part, epsabs=1e-14, epsrel=1e-13)[0]
        for part in ((-12, 0), (0, 12))
    )


def restated(x, w, scale, bias):
    """One unit after the other, in float64."""
    out = np.empty((len(x), w.shape[-1]))
    for i, w_i in enumerate(w.T):
        u = x @ w_i / np.sqrt(w_i @ w_i)
        out[:, i] = (np.maximum(0, scale[i] * u + bias[i]) - C1) / C2
    return out


def variables(shape):
    """Parameters of a dense layer, in float64."""
    draw = {"kernel": shape, "scale": shape[-1:], "bias": shape[-1:]}
    return {"params": {k: jnp.asarray(RNG.standard_normal(s)) for k, s in draw.items()}}


def test_dense_layer(x64):
    x, v = RNG.standard_normal((7, 4)), variables((4, 5))
    y = NormPropDense(5).apply(v, jnp.asarray(x))
    params = (np.asarray(v["params"][name]) for name in ("kernel", "scale", "bias"))
    assert_close(y, restated(x, *params), 1e-11)  # they have no epsilon


def test_conv_layer_is_the_dense_layer_of_every_patch(x64):
    """One filter is all kernel positions and input channels of an output map."""
    x, v = RNG.standard_normal((2, 5, 4, 3)), variables((3, 2, 3, 6))
    y = NormPropConv(6, (3, 2), padding="VALID").apply(v, jnp.asarray(x))
    w, scale, bias = (np.asarray(v["params"][k]) for k in ("kernel", "scale", "bias"))
    for i in range(3):
        for j in range(3):
            patches = x[:, i : i + 3, j : j + 2].reshape(2, -1)
            assert_close(y[:, i, j], restated(patches, w.reshape(18, 6), scale, bias), 1e-11)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", None])
def test_constants(activation):
    """Mean 0 and variance 1 of the normalized activation, and the gain, by quadrature."""
    f = {"relu": lambda z: np.maximum(z, 0), "sigmoid": special.expit, None: lambda z: z}
    mean = expectation(f[activation])
    std = np.sqrt(expectation(lambda z: (f[activation](z) - mean) ** 2))
    z = np.linspace(-3, 3, 7)
    with jax.enable_x64(True):
        o = norm_prop_activation(jnp.asarray(z), activation)
    assert_close(o, (f[activation](z) - mean) / std, 1e-12)
    slope = {
        "relu": lambda z: float(z > 0),
        "sigmoid": lambda z: special.expit(z) * special.expit(-z),
        None: lambda z: 1.0,
    }[activation]
    gain = np.sqrt(expectation(lambda z: slope(z) ** 2)) / std
    assert norm_prop_gain(activation) == pytest.approx(gain, rel=1e-12)


def test_constants_of_the_paper():
    assert norm_prop_gain() == pytest.approx(1.2111738962363165, rel=1e-15)
    with jax.enable_x64(True):
        o = np.asarray(norm_prop_activation(jnp.array([-1.0, 1.0])))
    np.testing.assert_allclose(o, [-C1 / C2, (1 - C1) / C2], rtol=1e-14)


def test_jacobian_at_scale_one(x64):
    """Orthogonal filters: singular values are 0 or 1.7129, and "1.21" is their rms."""
    n = 512
    w, _ = np.linalg.qr(RNG.standard_normal((n, n)))
    params = {"kernel": jnp.asarray(w), "scale": jnp.ones(n), "bias": jnp.zeros(n)}
    layer = NormPropDense(n)

    def jacobian(x):
        return jax.jacobian(lambda x: layer.apply({"params": params}, x[None])[0])(x)

    xs = jnp.asarray(RNG.standard_normal((8, n)))
    values = np.linalg.svd(jax.lax.map(jacobian, xs), compute_uv=False)
    assert np.all((values < 1e-12) | (np.abs(values - 1 / C2) < 1e-12))
    assert np.sqrt((values**2).mean()) == pytest.approx(1.2112, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "sigmoid", None])
def test_jacobian_at_the_initial_scale(activation, x64):
    """The scale that makes the rms singular value 1, for Gaussian filters too."""
    n = 256
    layer, x = NormPropDense(n, activation=activation), jnp.asarray(RNG.standard_normal((16, n)))
    v = layer.init(jax.random.key(0), x)
    jacobian = jax.vmap(jax.jacobian(lambda x: layer.apply(v, x[None])[0]))(x)
    rms = np.sqrt(np.square(jacobian).sum((1, 2)).mean() / n)
    assert rms == pytest.approx(1, rel=0.03)
    scale = v["params"]["scale"]
    assert_close(scale, np.full(n, 1 / norm_prop_gain(activation)), 1e-6)
    # The constants do not follow the scale: the outputs' moments are off, by known amounts.
    if activation == "relu":
        o = layer.apply(v, jnp.asarray(RNG.standard_normal((2000, n))))
        assert o.mean() == pytest.approx(C1 * (0.8256452711765564 - 1) / C2, abs=0.01)
        assert o.std() == pytest.approx(0.8256, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["gaussian", "uniform"])
def test_moments_are_propagated_through_eight_layers(data):
    """At scale 1, as printed: the deviation stays 1, the mean 0; no statistics were taken."""
    n = 512
    draw = {"gaussian": RNG.standard_normal, "uniform": lambda s: RNG.uniform(-(3**0.5), 3**0.5, s)}
    o = jnp.asarray(draw[data]((4096, n)), jnp.float32)
    layer = NormPropDense(n, scale_init=jax.nn.initializers.ones)
    for i in range(8):
        o = layer.apply(layer.init(jax.random.key(i), o), o)
    assert float(o.std(0).mean()) == pytest.approx(1, abs=0.05)
    assert float(jnp.abs(o.mean(0)).mean()) < 0.08


@pytest.mark.slow
@given(
    st.lists(st.floats(0.01, 100), min_size=3, max_size=3),
    st.integers(0, 99),
)
def test_only_the_directions_of_the_filters_matter(lengths, seed):
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        w, dw = (jnp.asarray(rng.standard_normal((4, 3))) for _ in range(2))
        out, pull = jax.vjp(norm_prop_kernel, w)
        assert_close(norm_prop_kernel(w * jnp.array(lengths)[None]), out, 1e-8)
        # So no gradient leads along a filter: its length never shrinks.
        (gradient,) = pull(dw)
        np.testing.assert_allclose((gradient * w).sum(0), 0, atol=1e-9)
        # The projection, as the chain rule gives it by hand.
        norm = jnp.sqrt((w**2).sum(0))[None]
        by_hand = (dw - out * (out * dw).sum(0)[None]) / norm
        assert_close(gradient, by_hand, 1e-8)


def test_filters_of_zeros_are_finite():
    value, pull = jax.vjp(norm_prop_kernel, jnp.zeros((4, 3)))
    np.testing.assert_array_equal(value, 0)
    assert np.isfinite(pull(jnp.ones((4, 3)))[0]).all()


@pytest.mark.slow
def test_feature_axes(x64):
    w = jnp.asarray(RNG.standard_normal((4, 3, 2)))
    first = norm_prop_kernel(jnp.moveaxis(w, -1, 0), feature_axes=0)
    assert_close(jnp.moveaxis(first, 0, -1), norm_prop_kernel(w), 1e-15)
    both = norm_prop_kernel(w, jnp.full((3, 2), 2.0), feature_axes=(1, 2))
    assert_close(jnp.square(both).sum(0), np.full((3, 2), 4.0), 1e-10)


@pytest.mark.slow
@given(st.integers(1, 5), st.integers(2, 6), st.integers(0, 99), st.floats(0.1, 3))
def test_covariance_bound(inputs, outputs, seed, variance):
    """S = variance W'W, whatever the filters; exact for two of them."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((inputs, outputs)) * rng.uniform(0.1, 10, outputs)
    covariance = variance * w.T @ w
    off_diagonal = np.linalg.norm(covariance - np.diag(np.diag(covariance)))
    with jax.enable_x64(True):
        bound = float(covariance_bound(jnp.asarray(w), variance))
    assert off_diagonal <= bound * (1 + 1e-9)
    if outputs == 2:
        assert off_diagonal == pytest.approx(bound, rel=1e-9)


def test_covariance_bound_with_the_squared_norms_missing_would_be_wrong(x64):
    """The form reported of the paper, one factor of the norms short: long filters break it."""
    w = np.array([[3.0, 3.0], [0.0, 3.0]])
    covariance = w.T @ w
    off_diagonal = np.linalg.norm(covariance - np.diag(np.diag(covariance)))
    mu = 1 / np.sqrt(2)
    printed = np.sqrt(mu**2 * (w**2).sum())  # sums of squared norms, not of their products
    assert printed < off_diagonal
    assert off_diagonal <= float(covariance_bound(jnp.asarray(w))) * (1 + 1e-12)


def test_covariance_bound_of_a_convolution(x64):
    """A filter is what leads to one output map; one of zeros has no direction."""
    w = RNG.standard_normal((3, 3, 2, 4))
    w[..., 1] = 0
    flat = w.reshape(18, 4)
    expected = covariance_bound(jnp.asarray(flat))
    assert_close(covariance_bound(jnp.asarray(w)), expected, 1e-12)
    moved = jnp.moveaxis(jnp.asarray(w), -1, 0)
    assert_close(covariance_bound(moved, feature_axes=0), expected, 1e-12)


# Harter's table of normal order statistics, and the variances that go with it.
@pytest.mark.parametrize(
    ("count", "mean", "var"),
    [(1, 0.0, 1.0), (2, 0.5641895835, 0.6816901138), (4, 1.0293753730, 0.4917152369),
     (9, 1.4850131622, 0.3573533264)],
)  # fmt: skip
def test_max_pool_moments(count, mean, var):
    ours = max_pool_moments(count)
    np.testing.assert_allclose(ours, (mean, np.sqrt(var)), rtol=1e-9, atol=1e-12)


def test_pooling_of_independent_values():
    x = jnp.asarray(RNG.standard_normal((40, 24, 24, 4)), jnp.float32)
    for pool in (norm_prop_avg_pool, norm_prop_max_pool):
        for window in ((2, 2), (3, 3), (2, 4)):
            y = pool(x, window, window)
            assert y.shape == (40, 24 // window[0], 24 // window[1], 4)
            assert float(y.mean()) == pytest.approx(0, abs=0.03)
            assert float(y.std()) == pytest.approx(1, abs=0.03)


def test_sum_of_independent_terms():
    terms = jnp.asarray(RNG.standard_normal((3, 100_000)))
    total = norm_prop_sum(*terms)
    assert float(total.std()) == pytest.approx(1, abs=0.01)
    assert_close(total, np.asarray(terms).sum(0) / np.sqrt(3), 1e-6)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda w: norm_prop_kernel(w, epsilon=-1.0), r"`epsilon` \(=-1.0\)"),
        (lambda w: norm_prop_kernel(w, jnp.ones(4)), r"`scale` has shape \(4,\)"),
        (lambda w: norm_prop_kernel(w, feature_axes=2), r"`feature_axes` \(=2\) must name"),
        (lambda w: norm_prop_activation(w, "tanh"), r"`activation` \(='tanh'\) .*'relu'"),
        (lambda w: norm_prop_gain("gelu"), r"`activation` \(='gelu'\)"),
        (lambda w: max_pool_moments(0), r"`count` \(=0\) must be a positive"),
        (lambda w: norm_prop_sum(), "`terms` is empty"),
        (lambda w: covariance_bound(w, -1.0), r"`variance` \(=-1.0\)"),
        (lambda w: NormPropDense(3, activation="elu").init(jax.random.key(0), w), "'elu'"),
    ],
)
def test_wrong_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call(jnp.ones((4, 3)))


@pytest.mark.parametrize("epsilon", [1e-12, 1e-30, 0.0, 1.0])
def test_filters_of_any_size(epsilon):
    """Squares overflow at 1e20 and underflow at 1e-25; a filter of zeros stays one."""
    sizes = np.array([1e20, 1e-25, 1.0, 0.0])
    kernel = (np.random.default_rng(0).normal(size=(7, 4)) * sizes).astype(np.float32)
    w, pull = jax.vjp(lambda k: norm_prop_kernel(k, epsilon=epsilon), jnp.asarray(kernel))
    exact = kernel.astype(float)
    norm = np.sqrt(np.square(exact).sum(0) + epsilon)
    expected = exact / np.where(norm > 0, norm, 1)
    for f in range(4):
        assert_close(w[:, f], expected[:, f], 1e-6)
    assert np.isfinite(pull(jnp.ones_like(w))[0]).all()


def test_the_bound_of_half_precision_and_of_nan():
    kernel = jnp.asarray([[300.0, 200.0], [0.0, 300.0]])
    bound = covariance_bound(kernel)
    assert np.isfinite(covariance_bound(kernel.astype(jnp.float16)))
    np.testing.assert_allclose(covariance_bound(kernel.astype(jnp.float16)), bound, rtol=1e-6)
    assert np.isnan(covariance_bound(kernel.at[0, 0].set(jnp.nan)))
