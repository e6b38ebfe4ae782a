"""Batch Kalman Normalization against the authors' code and a restatement in numpy."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import load_cases
from tests.oracle import assert_close
from unitnorm_jax.contrib.batch_kalman_norm import Moments, batch_kalman_norm, kalman_update
from unitnorm_jax.functional import BatchStats

CASES = load_cases("kalman")
# They hand float32(0.1) to their moving average.
MOMENTUM = 1 - float(np.float32(0.1))


def slice_size(config):
    return config["shape"][0] // config["split_num"]


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("filter")])
def test_filter_of_the_authors(name, x64):
    config, a = CASES[name]

    @jax.jit
    def run(args):
        x, scale, bias, prediction = args
        stats = BatchStats(jnp.zeros_like(scale), jnp.ones_like(scale))
        y, posterior, _ = batch_kalman_norm(
            x,
            stats,
            prediction,
            scale,
            bias,
            use_running_average=False,
            slice_size=slice_size(config),
            gain=1 - config["p_rate"],
            epsilon=config["epsilon"],
        )
        return y, posterior

    args = a["x"], a["gamma"], a["beta"], Moments(a["mu_pred"], a["v_pred"])
    (y, posterior), pullback = jax.vjp(run, jax.tree.map(jnp.asarray, args))
    assert_close(y, a["y"], 1e-11)
    assert_close(posterior.mean, a["post_mean"], 1e-11)
    assert_close(posterior.var, a["post_var"], 1e-11)
    zero = jax.tree.map(jnp.zeros_like, posterior)
    cotangents = {"d": zero, "d2": Moments(a["d_post_mean_cot"], a["d_post_var_cot"])}
    for prefix, cotangent in cotangents.items():
        ((x, scale, bias, prediction),) = pullback((jnp.asarray(a["dy"]), cotangent))
        for value, key in zip(
            (x, scale, bias, *prediction), ("x", "gamma", "beta", "mu_pred", "v_pred"), strict=True
        ):
            assert_close(value, a[f"{prefix}_{key}"], 1e-9, key)
    assert config["guard"] == bool(np.all(a["d2_mu_pred"] == 0))


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith("layer")])
def test_layer_of_the_authors_over_its_updates(name, x64):
    """Training, running statistics and inference; theirs is float32 without a prediction."""
    config, a = CASES[name]
    double = config["dtype"] == "float64"
    tol = 1e-9 if double else 2e-6
    options = {
        "slice_size": slice_size(config),
        "gain": 1 - config["p_rate"],
        # What TensorFlow's fused batch normalization makes of 1e-5.
        "epsilon": config["epsilon"] if double else 1.001e-5,
        "momentum": MOMENTUM,
        "bessel_correction": True,
    }

    @jax.jit
    def run(args, prediction, stats):
        y, *rest = batch_kalman_norm(
            args[0], stats, prediction, *args[1:], use_running_average=False, **options
        )
        return y, tuple(rest)

    scale, bias = jnp.asarray(a["gamma"]), jnp.asarray(a["beta"])
    stats = BatchStats(jnp.zeros_like(scale), jnp.ones_like(scale))
    for t in range(config["steps"]):
        step = {k.removeprefix(f"t{t}_"): v for k, v in a.items() if k.startswith(f"t{t}_")}
        prediction = None
        if config["with_pred"]:
            prediction = Moments(jnp.asarray(step["mu_pred"]), jnp.asarray(step["v_pred"]))
        args = jnp.asarray(step["x"]), scale, bias
        y, pullback, (posterior, stats) = jax.vjp(
            functools.partial(run, prediction=prediction, stats=stats), args, has_aux=True
        )
        assert_close(y, step["y"], tol)
        assert_close(posterior.mean, step["post_mean"], tol)
        assert_close(posterior.var, step["post_var"], tol)
        assert_close(stats.mean, step["running_mean"], tol)
        assert_close(stats.var, step["running_var"], tol)
        # Of two values per channel the gradient of x is a small difference of large numbers.
        size = np.max(np.abs(step["dy"] * a["gamma"])) / np.sqrt(step["post_var"].min() + 1e-5)
        (grads,) = pullback(jnp.asarray(step["dy"]))
        for value, key in zip(grads, ("dx", "d_gamma", "d_beta"), strict=True):
            assert_close(value, step[key], tol, key, size=0 if double else size)
        # (Theirs has a Bessel-corrected constant inside fused inference too: the same 1.001e-5.)
        y, posterior, same = batch_kalman_norm(
            *(args[0], stats, None, scale, bias), use_running_average=True, **options
        )
        assert_close(y, step["eval_y"], tol)
        for ours, theirs in zip(posterior, ("post_mean", "post_var"), strict=True):
            tiled = np.broadcast_to(ours, step[f"eval_{theirs}"].shape)
            assert_close(tiled, step[f"eval_{theirs}"], tol)
        jax.tree.map(np.testing.assert_array_equal, same, stats)


def restated(x, prediction, scale, bias, size, gain, guard=100.0, epsilon=1e-5):
    """One slice after the other, in numpy; features last."""
    slices = np.split(x, len(x) // size)
    over = tuple(range(x.ndim - 1))
    observed = [(s.mean(over), s.var(over)) for s in slices]
    posterior = observed
    ratio = np.mean(
        [
            np.broadcast_to(p, o[1].shape) / o[1]
            for p, o in zip(prediction[1], observed, strict=True)
        ]
    )
    if ratio < guard:
        posterior = []
        for (m, v), pm, pv in zip(observed, *prediction, strict=True):
            mean = (1 - gain) * pm + gain * m
            # The variance of a mixture, from its definition.
            var = (1 - gain) * (pv + (pm - mean) ** 2) + gain * (v + (m - mean) ** 2)
            posterior.append((mean, var))
    y = [
        (s - m) / np.sqrt(v + epsilon) * scale + bias
        for s, (m, v) in zip(slices, posterior, strict=True)
    ]
    return (
        np.concatenate(y),
        np.array([p[0] for p in posterior]),
        np.array([p[1] for p in posterior]),
    )


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(("shape", "size", "axis"), [((6, 5), 3, -1), ((6, 4, 3, 2), 2, 1)])
@pytest.mark.parametrize("gain", [0.1, 1])
def test_restated_in_numpy(shape, size, axis, gain, offset, x64):
    rng = np.random.default_rng(0)
    channels, slices = shape[axis], shape[0] // size
    x = offset + rng.normal(size=shape) * 3
    prediction = Moments(
        offset + rng.normal(size=(slices, channels)), rng.uniform(1, 9, (slices, channels))
    )
    scale, bias = rng.normal(size=(2, channels))
    stats = BatchStats(
        jnp.asarray(rng.normal(size=channels)), jnp.asarray(rng.uniform(1, 2, channels))
    )
    expected, mean, var = restated(np.moveaxis(x, axis, -1), prediction, scale, bias, size, gain)
    expected = np.moveaxis(expected, -1, axis)
    for dtype, tol in ((jnp.float64, 1e-11), (jnp.float32, 1e-5 if offset == 0 else 3e-3)):
        cast = functools.partial(jnp.asarray, dtype=dtype)
        run = functools.partial(
            batch_kalman_norm,
            use_running_average=False,
            axis=axis,
            slice_size=size,
            gain=gain,
            momentum=0.8,
        )
        moments = Moments(*map(cast, prediction))
        y, posterior, after = jax.jit(run)(cast(x), stats, moments, cast(scale), cast(bias))
        assert y.dtype == dtype
        assert_close(y, expected, tol)
        assert_close(posterior.mean, mean, tol)
        assert_close(posterior.var, var, tol)
        assert_close(after.mean, 0.8 * stats.mean + 0.2 * mean[0], tol)
        assert_close(after.var, 0.8 * stats.var + 0.2 * var[0], tol)


def test_gain_1_is_batch_normalization_of_each_slice():
    x = jax.random.normal(jax.random.key(0), (8, 3, 3, 4)) * 2 + 1
    stats = BatchStats(jnp.zeros(4), jnp.ones(4))
    norm = nn.BatchNorm(use_running_average=False)
    variables = norm.init(jax.random.key(0), x)
    each = [norm.apply(variables, s, mutable=["batch_stats"])[0] for s in jnp.split(x, 4)]
    far = Moments(jnp.full((1, 4), 7.0), jnp.full((1, 4), 9.0))
    for prediction in (None, far):
        y, _, _ = batch_kalman_norm(
            x, stats, prediction, use_running_average=False, slice_size=2, gain=1
        )
        assert_close(y, jnp.concatenate(each), 1e-5)


def test_exact_prediction_of_a_small_slice_is_better_than_what_it_shows():
    """Why the method is there: the error of a slice's moments falls by the gain."""
    x = jax.random.normal(jax.random.key(0), (64, 500)) * 3 + 2
    stats = BatchStats(jnp.zeros(500), jnp.ones(500))
    truth = Moments(jnp.full((1, 500), 2.0), jnp.full((1, 500), 9.0))
    error = {}
    for gain in (0.1, 1.0):
        _, posterior, _ = batch_kalman_norm(
            x, stats, truth, use_running_average=False, slice_size=2, gain=gain, guard=np.inf
        )
        error[gain] = float(jnp.sqrt(jnp.mean((posterior.mean - 2) ** 2)))
    assert error[1.0] == pytest.approx(3 / np.sqrt(2), rel=0.02)
    assert error[0.1] == pytest.approx(0.1 * error[1.0], rel=1e-4)


@pytest.mark.parametrize("var_pred", [np.nan, 1e9])
def test_what_the_guard_rejects_reaches_neither_output_nor_gradient(var_pred):
    x = jax.random.normal(jax.random.key(0), (4, 6))
    stats = BatchStats(jnp.zeros(6), jnp.ones(6))
    bad = Moments(jnp.full((2, 6), var_pred), jnp.full((2, 6), var_pred))

    def loss(x, prediction):
        y, posterior, after = batch_kalman_norm(
            x, stats, prediction, use_running_average=False, slice_size=2
        )
        return jnp.sum(jnp.sin(y)) + sum(map(jnp.sum, (*posterior, *after))), y

    (value, y), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(x, bad)
    (_, y_alone), grad_alone = jax.jit(jax.value_and_grad(loss, has_aux=True))(x, None)
    assert np.isfinite(value)
    assert_close(y, y_alone, 1e-6)
    assert_close(grads[0], grad_alone, 1e-6)
    jax.tree.map(lambda g: np.testing.assert_array_equal(g, 0), grads[1])


def test_constant_channel_trips_the_guard_without_nan():
    x = jnp.ones((4, 3)).at[:, 1].set(jnp.arange(4.0))
    stats = BatchStats(jnp.zeros(3), jnp.ones(3))
    prediction = Moments(jnp.zeros((1, 3)), jnp.ones((1, 3)))
    y, posterior, _ = batch_kalman_norm(x, stats, prediction, use_running_average=False)
    assert np.isfinite(y).all()
    assert_close(posterior.var, x.var(0)[None], 1e-6)


def call(x=None, prediction=None, stats=None, **options):
    x = jnp.ones((6, 4)) if x is None else x
    stats = BatchStats(jnp.zeros(4), jnp.ones(4)) if stats is None else stats
    return batch_kalman_norm(x, stats, prediction, **{"use_running_average": False} | options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gain": -0.1}, r"`gain` \(=-0.1\) must be in \[0, 1\]"),
        ({"gain": 1.1}, r"`gain` \(=1.1\) must be in \[0, 1\]"),
        ({"guard": 0}, r"`guard` \(=0\) must be positive"),
        ({"guard": float("nan")}, r"`guard` \(=nan\) must be positive"),
        ({"momentum": 1.5}, r"`momentum` \(=1.5\) must be in \[0, 1\]"),
        ({"epsilon": -1}, r"`epsilon` \(=-1\) must be finite and not negative"),
        ({"slice_size": 4}, r"`slice_size` \(=4\) must be .* divide the number of samples \(=6\)"),
        ({"slice_size": 0}, r"`slice_size` \(=0\) must be positive"),
        ({"slice_size": 1, "bessel_correction": True}, r"`bessel_correction` needs at least two"),
        ({"axis": 0}, r"`sample_axis` \(=0\) must not be a feature axis"),
        ({"axis": 2}, r"`axis` \(=2\) is out of range"),
        ({"x": jnp.ones((6, 4), complex)}, "The input must be real, not complex"),
        ({"x": jnp.ones(4)}, "The input must have rank >= 2"),
        ({"scale": jnp.ones(3)}, r"`scale` has shape \(3,\), but the feature axes"),
        ({"stats": BatchStats(jnp.zeros(3), jnp.ones(4))}, r"`mean` has shape \(3,\)"),
        (
            {"prediction": Moments(jnp.zeros((2, 4)), jnp.ones((3, 4))), "slice_size": 2},
            r"`prediction.mean` has shape \(2, 4\), .* = \(3, 4\), or \(1, 4\) for all slices",
        ),
        (
            {"prediction": Moments(jnp.zeros((1, 4)), jnp.ones(4))},
            r"`prediction.var` has shape \(4,\), but must be",
        ),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        call(**arguments)


def test_kalman_update_alone_checks_too():
    moments = Moments(jnp.zeros((2, 3)), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"`gain` \(=2\)"):
        kalman_update(moments, moments, gain=2)
