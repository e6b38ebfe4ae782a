"""The module, and the authors' residual blocks built from it and the functions around it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import load_cases
from tests.oracle import assert_close
from unitnorm_jax.contrib.batch_kalman_norm import (
    BatchKalmanNorm,
    Moments,
    add_moments,
    layer_moments,
    relu_moments,
    sampled_moments,
)

CASES = {k: v for k, v in load_cases("kalman").items() if k.startswith("residual")}
MOMENTUM = 1 - float(np.float32(0.1))


class PublishedBlock(nn.Module):
    """Their block, with recorded draws: option-A shortcut, no normalization in the first one."""

    slice_size: int
    gain: float
    first: bool
    increase: bool

    @nn.compact
    def __call__(self, x, moments, draws):
        norm = functools.partial(
            BatchKalmanNorm,
            use_running_average=False,
            slice_size=self.slice_size,
            gain=self.gain,
            momentum=MOMENTUM,
            param_dtype=jnp.float64,
            force_float32_reductions=False,
            moments_of="input",
        )
        features = x.shape[-1] * (2 if self.increase else 1)
        conv = functools.partial(nn.Conv, features, (3, 3), use_bias=False, param_dtype=float)
        conv1 = conv(strides=2 if self.increase else 1, name="conv1")
        conv2 = conv(name="conv2")
        shortcut, posterior, inner = x, moments, {}
        if not self.first:
            inner["kn/mu_pred"], inner["kn/v_pred"] = moments
            x, posterior = norm(name="kn")(x, prediction=moments)
            inner["kn/post_mean"], inner["kn/post_var"] = posterior
            x = nn.relu(x)
        x = conv1(x)
        prediction = sampled_moments(posterior, draws[0], lambda s: conv1(nn.relu(s)))
        inner["kn1/mu_pred"], inner["kn1/v_pred"] = prediction
        x, posterior = norm(name="kn1")(x, prediction=prediction)
        inner["kn1/post_mean"], inner["kn1/post_var"] = posterior
        x = conv2(nn.relu(x))
        branch = sampled_moments(posterior, draws[1], lambda s: conv2(nn.relu(s)))
        if self.increase:
            shortcut = nn.avg_pool(shortcut, (2, 2), (2, 2))
            pad = shortcut.shape[-1] // 2
            shortcut = jnp.pad(shortcut, [(0, 0)] * 3 + [(pad, pad)])
        return shortcut + x, add_moments(moments, branch), inner


def as_they_pad(moments, out):
    """What they return at a wider block: the shortcut's moments padded as ONE flat vector."""
    if moments.mean.shape == out.mean.shape:
        return out
    right = add_moments(moments, jax.tree.map(jnp.zeros_like, out))
    missing = (out.mean.size - moments.mean.size) // 2
    theirs = Moments(*(jnp.pad(m.ravel(), missing).reshape(out.mean.shape) for m in moments))
    return jax.tree.map(lambda o, r, t: o - r + t, out, right, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_residual_blocks_of_the_authors(name, x64):
    config, a = CASES[name]
    slices, size = config["split_num"], config["shape"][0] // config["split_num"]
    block = PublishedBlock(size, 1 - config["p_rate"], config["first"], config["increase_dim"])
    params, theirs = {}, {}
    for key in a:
        if key.startswith("param:"):
            layer, weight = key.split("/")[-2:]
            at = layer, {"gamma": "scale", "beta": "bias", "W": "kernel"}[weight]
            params.setdefault(at[0], {})[at[1]] = jnp.asarray(a[key])
            theirs[at] = key.removeprefix("param:")
    stats = {
        layer: {"mean": jnp.zeros_like(p["scale"]), "var": jnp.ones_like(p["scale"])}
        for layer, p in params.items()
        if "scale" in p
    }
    draws = [
        jnp.moveaxis(a[f"draw{i}"].reshape(*a[f"draw{i}"].shape[:2], slices, -1), 2, 0)
        for i in (0, 1)
    ]
    moments = Moments(jnp.asarray(a["mu_in"]), jnp.asarray(a["v_in"]))

    @jax.jit
    def run(params, x, moments):
        (out, handed, inner), updated = block.apply(
            {"params": params, "batch_stats": stats}, x, moments, draws, mutable=["batch_stats"]
        )
        return (out, as_they_pad(moments, handed)), (inner, updated)

    (out, handed), pullback, (inner, updated) = jax.vjp(
        run, params, jnp.asarray(a["x"]), moments, has_aux=True
    )
    assert_close(out, a["out"], 1e-10)
    assert_close(handed.mean.ravel(), a["mu_out"], 1e-10)
    assert_close(handed.var.ravel(), a["v_out"], 1e-10)
    for key, value in inner.items():
        assert_close(value, a[f"inner:{key}"], 1e-10, key)
    for layer, averages in updated["batch_stats"].items():
        for ours, key in (("mean", "mean"), ("var", "variance")):
            (expected,) = (a[k] for k in a if k.startswith("ema:") and f"/{layer}/{key}/" in k)
            assert_close(averages[ours], expected, 1e-10)
    shape = handed.mean.shape
    both = Moments(*(jnp.asarray(a[k].reshape(shape)) for k in ("d_mu_out_cot", "d_v_out_cot")))
    for prefix, cotangent in (("grad", both), ("gradout", jax.tree.map(jnp.zeros_like, both))):
        grads, dx, dmoments = pullback((jnp.asarray(a["d_out_cot"]), cotangent))
        for (layer, weight), key in theirs.items():
            assert_close(grads[layer][weight], a[f"{prefix}:{key}"], 1e-9, key)
        if prefix == "grad":
            assert_close(dx, a["d_x"], 1e-9)
            assert_close(dmoments.mean, a["d_mu_in"], 1e-9)
            assert_close(dmoments.var, a["d_v_in"], 1e-9)


def test_padding_per_slice_differs_from_theirs_only_with_several_slices():
    moments = Moments(jnp.arange(4.0).reshape(2, 2), jnp.ones((2, 2)))
    zero = Moments(jnp.zeros((2, 4)), jnp.zeros((2, 4)))
    assert add_moments(moments, zero).mean.tolist() == [[0, 0, 1, 0], [0, 2, 3, 0]]
    assert as_they_pad(moments, add_moments(moments, zero)).mean.tolist() == [
        [0, 0, 0, 1],
        [2, 3, 0, 0],
    ]
    one = jax.tree.map(lambda m: m[:1], (moments, zero))
    ours = add_moments(*one)
    jax.tree.map(np.testing.assert_array_equal, as_they_pad(one[0], ours), ours)


class Chain(nn.Module):
    """Two layers with a convolution between: prediction by the deterministic moments."""

    moments_of: str = "output"
    axis_name: str | None = None
    slice_size: int | None = 2

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(
            BatchKalmanNorm,
            use_running_average=False,
            slice_size=self.slice_size,
            axis_name=self.axis_name,
            moments_of=self.moments_of,
            guard=1e6,
        )
        x, moments = norm(name="norm_0", first=True)(x)
        conv = nn.Conv(5, (3, 3), strides=2, use_bias=False, name="conv")
        y = conv(nn.relu(x))
        prediction = layer_moments(conv, relu_moments(moments), x.shape)
        self.sow("intermediates", "prediction", prediction)
        self.sow("intermediates", "convolved", y)
        return norm(name="norm_1")(y, prediction=prediction)


def data(samples=16):
    x = jax.random.normal(jax.random.key(0), (samples, 6, 6, 3))
    return (
        x * jnp.array([0.3, 1.0, 4.0])[None, None, None]
        + jnp.array([2.0, 0.0, -7.0])[None, None, None]
    )


def test_moments_of_the_output_predict_what_comes():
    """In deviations, and relative: on many independent values. The state before norm does not."""
    x = data(512)
    errors = {}
    for of in ("output", "input"):
        chain = Chain(of, slice_size=None)
        variables = jax.jit(chain.init)(jax.random.key(1), x)
        run = functools.partial(chain.apply, mutable=["batch_stats", "intermediates"])
        _, found = jax.jit(run)(variables, x)
        (prediction,), (y,) = (found["intermediates"][k] for k in ("prediction", "convolved"))
        off = prediction.mean[0] - y.mean((0, 1, 2))
        ratio = prediction.var[0] / y.var((0, 1, 2))
        errors[of] = [float(jnp.abs(e).max()) for e in (off / y.std((0, 1, 2)), ratio - 1)]
    assert max(errors["output"]) < 0.05
    assert min(errors["input"]) > 0.5


def test_inference_is_batch_normalization_with_running_statistics():
    x, norm = data(), BatchKalmanNorm(slice_size=2, use_running_average=True, moments_of="input")
    variables = norm.init(jax.random.key(0), x)
    variables["batch_stats"] = {"mean": jnp.array([1.0, 2, 3]), "var": jnp.array([4.0, 5, 6])}
    bn = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
    y, moments = norm.apply(variables, x[:3])  # no multiple of the slice
    assert_close(y, bn.apply(variables, x[:3]), 1e-6)
    assert moments.mean.tolist() == [[1, 2, 3]]
    assert moments.var.tolist() == [[4, 5, 6]]


def test_chain_over_devices_is_the_chain_over_the_whole_batch():
    """Two samples on each of eight devices: a slice each, predictions stay where they are made."""
    x = data()
    variables = jax.jit(Chain().init)(jax.random.key(1), x)

    def run(chain, params, x):
        (y, moments), updated = chain.apply(
            {**variables, "params": params}, x, mutable=["batch_stats"]
        )
        return y, moments, updated

    expected = jax.jit(functools.partial(run, Chain()))(variables["params"], x)
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    mapped = jax.shard_map(
        functools.partial(run, Chain(axis_name="batch")),
        mesh=mesh,
        in_specs=(P(), P("batch")),
        out_specs=(P("batch"), P("batch"), P()),
    )
    actual = jax.jit(mapped)(variables["params"], x)
    jax.tree.map(functools.partial(assert_close, tol=2e-5), actual, expected)


def test_missing_prediction():
    x = data()
    with pytest.raises(ValueError, match=r"`prediction` is missing: .* `first=True`"):
        BatchKalmanNorm(use_running_average=False).init(jax.random.key(0), x)
    variables = BatchKalmanNorm(use_running_average=True).init(jax.random.key(0), x)
    BatchKalmanNorm(use_running_average=True).apply(variables, x)
    # At gain 1 it would have no weight.
    layer = BatchKalmanNorm(use_running_average=False, gain=1.0)
    layer.apply(variables, x, mutable=["batch_stats"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"moments_of": "both"}, r"`moments_of` \(='both'\) must be one of 'output', 'input'"),
        ({"first": True}, "`prediction` was given to a layer with `first=True`"),
        ({"slice_size": 3}, r"`slice_size` \(=3\) must be .* divide the number of samples \(=16\)"),
        ({"gain": -1.0}, r"`gain` \(=-1.0\) must be in"),
    ],
)
def test_bad_fields(fields, message):
    prediction = Moments(jnp.zeros((1, 3)), jnp.ones((1, 3)))
    layer = BatchKalmanNorm(use_running_average=False, **fields)
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), data(), prediction=prediction)
