"""Weight standardization against the published code and a float64 restatement."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from tests.golden import load_cases
from tests.oracle import assert_close
from unitnorm_jax.contrib.weight_standardization import (
    WeightStandardizedConv,
    weight_standardization,
)

CASES = {k: c for k, c in load_cases("bcn").items() if c.config["kind"] == "ws_conv"}
FINITE = {k: c for k, c in CASES.items() if c.config["finite"]}
KERNEL = np.random.default_rng(0).normal(1.0, 0.3, (3, 3, 2, 5)).astype(np.float32)


def placement(case):
    return "variance" if case.config["variant"].startswith("sqrt") else "std"


def restated(w, epsilon, epsilon_added_to, axis=-1):
    """One filter after the other."""
    out = np.moveaxis(w.astype(float), axis, 0).copy()
    for w_f in out:
        w_f -= np.mean(w_f)
        if epsilon_added_to == "std":
            w_f /= np.std(w_f, ddof=1) + epsilon
        else:
            w_f /= np.sqrt(np.var(w_f, ddof=1) + epsilon)
    return np.moveaxis(out, 0, axis)


@pytest.mark.slow
@pytest.mark.parametrize("case", FINITE.values(), ids=FINITE)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_published_code(case, dtype):
    """The module around it: output, and gradients of kernel and input."""
    a, config = case.arrays, case.config
    side, stride = config["padding"], config["stride"]
    layer = WeightStandardizedConv(
        config["kernel_shape"][-1],
        config["kernel_shape"][:2],
        strides=(stride, stride),
        padding=((side, side), (side, side)),
        use_bias=False,
        epsilon_added_to=placement(case),
    )
    with jax.enable_x64(dtype == "float64"):
        kernel, x, dy = (jnp.asarray(a[name], dtype) for name in ("kernel", "x", "dy"))

        def loss(kernel, x):
            y = layer.apply({"params": {"kernel": kernel}}, x)
            return jnp.sum(y * dy), y

        (d_kernel, dx), y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(kernel, x)
        standardized = weight_standardization(kernel, epsilon_added_to=placement(case))
    tol = 1e-9 if dtype == "float64" else 1e-5
    assert_close(standardized, a["kernel_standardized"], tol)
    assert_close(y, a["y"], tol)
    assert_close(d_kernel, a["d_kernel"], tol)
    assert_close(dx, a["dx"], tol)


@pytest.mark.parametrize("case", [c for c in CASES.values() if not c.config["finite"]])
def test_one_weight_per_filter_is_refused(case):
    """The published code makes NaN of it."""
    assert np.isnan(case.arrays["kernel_standardized"]).all()
    with pytest.raises(ValueError, match=r"shape \(1, 1, 1, 4\) has one weight per filter"):
        weight_standardization(jnp.asarray(case.arrays["kernel"]))


@pytest.mark.parametrize("epsilon_added_to", ["variance", "std"])
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("epsilon", [1e-5, 0.1, 0.0])
def test_matches_restatement(epsilon, axis, epsilon_added_to, x64):
    w = weight_standardization(
        jnp.asarray(KERNEL, float),
        epsilon=epsilon,
        epsilon_added_to=epsilon_added_to,
        feature_axes=axis,
    )
    assert_close(w, restated(KERNEL, epsilon, epsilon_added_to, axis), 1e-13)


def test_several_feature_axes(x64):
    """As of `nn.DenseGeneral`: a filter is what leads to one output."""
    w = weight_standardization(jnp.asarray(KERNEL, float), feature_axes=(2, -1))
    expected = restated(KERNEL.reshape(3, 3, 10), 1e-5, "variance").reshape(KERNEL.shape)
    assert_close(w, expected, 1e-13)


@pytest.mark.parametrize("epsilon_added_to", ["variance", "std"])
def test_derivatives(epsilon_added_to, x64):
    f = functools.partial(weight_standardization, epsilon_added_to=epsilon_added_to)
    kernel = jnp.asarray(KERNEL, float)
    check_grads(jax.jit(f), (kernel,), order=2, modes=["rev"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("epsilon_added_to", ["variance", "std"])
@pytest.mark.parametrize("epsilon", [1e-5, 0.0])
def test_constant_filters_give_zero_and_finite_gradients(epsilon, epsilon_added_to):
    kernel = jnp.full((3, 3, 2, 4), 2.0)
    options = {"epsilon": epsilon, "epsilon_added_to": epsilon_added_to}
    w, pull = jax.vjp(functools.partial(weight_standardization, **options), kernel)
    np.testing.assert_array_equal(w, 0)
    assert np.isfinite(pull(jnp.asarray(KERNEL[..., :4]))[0]).all()


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_scale_and_shift_of_a_filter_do_not_matter(factor, shift):
    with jax.enable_x64(True):
        kernel = jnp.asarray(KERNEL, float)
        moved = weight_standardization(factor * kernel + shift, epsilon=1e-12)
        assert_close(moved, weight_standardization(kernel, epsilon=1e-12), 1e-8)


def test_half_precision_is_computed_in_float32():
    kernel = jnp.asarray(KERNEL, jnp.bfloat16)
    w = weight_standardization(kernel)
    assert w.dtype == jnp.bfloat16
    expected = weight_standardization(kernel.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(w, expected)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"epsilon": -1.0}, r"`epsilon` \(=-1.0\)"),
        ({"epsilon_added_to": "norm"}, r"`epsilon_added_to` \(='norm'\) must be .*'variance'"),
        ({"feature_axes": 4}, r"`feature_axes` \(=4\) must name .* \(3, 3, 2, 5\)"),
        ({"feature_axes": (-1, 3)}, r"`feature_axes` \(=\(-1, 3\)\) must .* each once"),
        ({"feature_axes": ()}, r"`feature_axes` \(=\(\)\) must name one or more"),
        ({"feature_axes": (0, 1, 2, 3)}, "leave at least one for the inputs"),
    ],
)
def test_wrong_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        weight_standardization(jnp.asarray(KERNEL), **options)


@pytest.mark.parametrize("options", [{}, {"epsilon": 0.5, "epsilon_added_to": "std"}])
def test_the_module_is_flax_conv_with_another_kernel(options):
    ours, theirs, args = WeightStandardizedConv, nn.Conv, (5, (3, 3))
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
    variables = ours(*args, **options).init(jax.random.key(1), x)
    plain = theirs(*args).init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, variables, plain)  # the raw kernel is stored
    kernel = weight_standardization(variables["params"]["kernel"], **options)
    expected = theirs(*args).apply({"params": plain["params"] | {"kernel": kernel}}, x)
    np.testing.assert_array_equal(ours(*args, **options).apply(variables, x), expected)


EPSILONS = [1e-5, 1e-12, 1e-30, 1e-300, 3.0, 0.0]


def value_and_pull(kernel, **options):
    w, pull = jax.vjp(functools.partial(weight_standardization, **options), jnp.asarray(kernel))
    return w, pull(jnp.asarray(KERNEL))[0]


@pytest.mark.parametrize("epsilon_added_to", ["variance", "std"])
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_constants_that_no_mean_of_theirs_equals(epsilon, epsilon_added_to):
    """1/3 times 18 over 18 is not 1/3: what rounding leaves is not standardized."""
    constants = np.array([0.1, 1 / 3, 1e4, 1e-30, 3e38], np.float32)
    kernel = np.broadcast_to(constants, KERNEL.shape)
    w, gradient = value_and_pull(kernel, epsilon=epsilon, epsilon_added_to=epsilon_added_to)
    np.testing.assert_array_equal(w, 0)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("epsilon_added_to", ["variance", "std"])
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_filters_of_any_mean_and_size(epsilon, epsilon_added_to):
    """Variances far below the rounding of the mean, squares that overflow or underflow."""
    means = np.array([1e4, 1e8, 0, 0, 1e-20])
    stds = np.array([1e-3, 10, 1e-25, 1e20, 1e-22])
    kernel = (means + stds * (KERNEL - 1) / 0.3).astype(np.float32)
    w, gradient = value_and_pull(kernel, epsilon=epsilon, epsilon_added_to=epsilon_added_to)
    expected = restated(kernel, epsilon, epsilon_added_to)
    for f in range(5):
        assert_close(w[..., f], expected[..., f], 1e-6)
    assert np.isfinite(gradient).all()


def test_a_filter_that_is_not_a_number_shows():
    kernel = KERNEL.copy()
    kernel[0, 0, 0, 1] = np.nan
    for epsilon_added_to in ("variance", "std"):
        w = weight_standardization(jnp.asarray(kernel), epsilon_added_to=epsilon_added_to)
        assert np.isnan(w[..., 1]).all()
        assert np.isfinite(w[..., 0]).all()
