"""Batch-channel normalization against published code, Flax's layers and a float64 restatement."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from tests.contrib.batch_channel_norm.reference import batch_channel_norm as reference
from tests.golden import load_cases
from tests.oracle import assert_close
from unitnorm_jax.contrib.batch_channel_norm import batch_channel_norm
from unitnorm_jax.functional import BatchStats

GOLDEN = load_cases("bcn")
PARAMS = ("scale", "bias", "group_scale", "group_bias")
THEIRS = ("bn_gamma", "bn_beta", "gn_gamma", "gn_beta")


@functools.partial(jax.jit, static_argnames="config")
def _run(x, mean, var, params, dy, rate, mask, config):
    def loss(params, x):
        y, stats = batch_channel_norm(
            x, BatchStats(mean, var), **params, rate=rate, mask=mask, **dict(config)
        )
        return jnp.sum(y.astype(dy.dtype) * dy), (y, stats)

    (_, out), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)
    return *out, grads[0] | {"x": grads[1]}


def run(x, mean, var, params, dy=None, rate=None, mask=None, dtype="float64", **config):
    """Output, statistics, gradients of ``sum(y * dy)``; every array cast to ``dtype``."""
    dy = np.zeros(x.shape) if dy is None else dy
    args = jax.tree.map(lambda a: jnp.asarray(a, dtype), (x, mean, var, params, dy, rate))
    mask = None if mask is None else jnp.asarray(mask)
    return _run(*args, mask, config=tuple(config.items()))


def golden(kind):
    names = [name for name, case in GOLDEN.items() if case.config["kind"] == kind]
    return pytest.mark.parametrize("case", [GOLDEN[name] for name in names], ids=names)


def golden_gradients(arrays, prefix):
    """Ours by name: those of the parameters, and of x; only x's where there are no others."""
    theirs = dict(zip(PARAMS, THEIRS, strict=True))
    keys = {"x": f"{prefix}dx"} | {name: f"{prefix}d_{key}" for name, key in theirs.items()}
    return {name: arrays[key] for name, key in keys.items() if key in arrays}


@golden("bcn")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_published_code(case, mode, dtype):
    """PyTorch's momentum 0.1 is 0.9 here, and its running variance is the unbiased one."""
    a, config = case.arrays, case.config
    when = "before" if mode == "train" else "after"
    with jax.enable_x64(dtype == "float64"):
        y, stats, grads = run(
            a["x"],
            a[f"running_mean_{when}"],
            a[f"running_var_{when}"],
            {ours: a[theirs] for ours, theirs in zip(PARAMS, THEIRS, strict=True)},
            a["dy"],
            dtype=dtype,
            use_running_average=mode == "eval",
            num_groups=config["groups"],
            momentum=1 - config["bn_momentum_torch"],
            epsilon=config["eps_bn"],
            bessel_correction=True,
        )
    tol = 1e-9 if dtype == "float64" else 1e-5
    assert_close(y, a[f"{mode}_y"], tol)
    expected = golden_gradients(a, f"{mode}_")
    assert expected.keys() == grads.keys()
    for name, value in expected.items():
        assert_close(grads[name], value, tol, name)
    assert_close(stats.mean, a["running_mean_after"], tol)
    assert_close(stats.var, a["running_var_after"], tol)


@golden("bcn_estbn")
@pytest.mark.parametrize("rate", ["0", "0.01", "0.1", "0.5"])
def test_published_code_with_estimates(case, rate, x64):
    a, config = case.arrays, case.config
    params = {ours: a[theirs] for ours, theirs in zip(PARAMS, THEIRS, strict=True)}
    mean, var = np.zeros(16), np.ones(16)
    options = {"num_groups": config["groups"], "rate": float(rate), "epsilon": config["eps_bn"]}
    for step in range(config["steps"]):
        y, (mean, var), grads = run(
            a[f"x_{step}"],
            mean,
            var,
            params,
            a[f"dy_{step}"],
            use_running_average=False,
            **options,
        )
        prefix = f"r{rate}_t{step}_"
        assert_close(y, a[f"{prefix}y"], 1e-9)
        assert_close(mean, a[f"{prefix}running_mean"], 1e-9)
        assert_close(var, a[f"{prefix}running_var"], 1e-9)
        expected = golden_gradients(a, prefix)
        assert expected.keys() == grads.keys()
        for name, value in expected.items():
            assert_close(grads[name], value, 1e-9, name)
    y, stats, grads = run(
        a["x_0"], mean, var, params, a["dy_0"], use_running_average=True, **options
    )
    assert_close(y, a[f"r{rate}_eval_y"], 1e-9)
    assert_close(grads["x"], a[f"r{rate}_eval_dx"], 1e-9)
    np.testing.assert_array_equal(stats, (mean, var))


def problem(shape, axis=-1, num_groups=2, offset=0.0, seed=0, mask=None):
    """Arguments exact in float32; channels have a mean of ``offset`` standard deviations."""
    rng = np.random.default_rng(seed)
    channels = shape[axis]
    spread = rng.uniform(0.5, 2, [s if i == axis % len(shape) else 1 for i, s in enumerate(shape)])
    sizes = {"scale": channels, "bias": channels, "group_scale": num_groups}
    out = {
        "x": spread * (rng.standard_normal(shape) + offset),
        "mean": offset + rng.standard_normal(channels),
        "var": rng.uniform(0.5, 2, channels),
    }
    params = {name: rng.standard_normal(size) for name, size in sizes.items()}
    params["group_bias"] = rng.standard_normal(num_groups)
    if mask is not None:
        out["mask"] = rng.uniform(size=mask) < 0.6
    out = jax.tree.map(lambda a: a if a.dtype == bool else a.astype(np.float32), out)
    return out | {"params": {k: v.astype(np.float32) for k, v in params.items()}}


def assert_matches(problem, tol, dtype="float64", rate=None, **config):
    y, stats, _ = run(**problem, rate=rate, dtype=dtype, **config)
    arrays = {k: v for k, v in problem.items() if k != "params"}
    config.pop("use_fast_variance", None)
    expected = reference(**arrays, **problem["params"], rate=rate, **config)
    valid = np.broadcast_to(problem.get("mask", True), y.shape)
    assert_close(np.where(valid, y, 0), np.where(valid, expected.y, 0), tol, "y")
    assert_close(stats.mean, expected.mean, tol, "mean")
    assert_close(stats.var, expected.var, tol, "var")


SHAPES = {
    "dense": ((6, 4), -1, 0, None),
    "images": ((4, 3, 2, 6), -1, 0, None),
    "one image": ((1, 3, 2, 6), -1, 0, None),
    "channels first": ((4, 6, 3, 2), 1, 0, None),
    "sample axis last": ((3, 4, 2, 5), 1, -1, None),
    "mask of samples": ((6, 3, 4), -1, 0, (6, 1, 1)),
    "mask of positions, channels first": ((4, 4, 6), 1, 0, (4, 1, 6)),
    "mask of values": ((4, 6, 4), -1, 0, (4, 6, 4)),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("rate", [None, 0.3])
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_matches_reference(name, train, rate, x64):
    shape, axis, sample_axis, mask = SHAPES[name]
    assert_matches(
        problem(shape, axis, mask=mask),
        1e-12,
        rate=rate,
        use_running_average=not train,
        num_groups=2,
        axis=axis,
        sample_axis=sample_axis,
        momentum=0.8,
        epsilon=1e-3,
    )


@pytest.mark.parametrize("fast", [True, False], ids=["one pass", "two passes"])
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("mask", [None, (8, 4, 1)], ids=["", "mask"])
def test_offsets_in_float32(offset, fast, mask):
    inputs = problem((8, 4, 6), offset=offset, mask=mask)
    inputs["mean"], inputs["var"] = np.zeros(6, np.float32), np.ones(6, np.float32)
    options = {"use_running_average": False, "num_groups": 3, "use_fast_variance": fast}
    inputs["params"]["group_scale"] = inputs["params"]["group_bias"] = np.ones(3, np.float32)
    assert_matches(inputs, 1e-5, dtype="float32", **options)


def test_is_flax_batch_norm_then_group_norm():
    """With each group's scale and bias given to all of its channels."""
    args = problem((8, 4, 4, 6), num_groups=3)
    params = args["params"]
    y, stats, _ = run(
        **args, dtype="float32", use_running_average=False, num_groups=3, momentum=0.9
    )
    batch, group = nn.BatchNorm(use_running_average=False, momentum=0.9), nn.GroupNorm(3)
    between, updated = batch.apply(
        {
            "params": {"scale": params["scale"], "bias": params["bias"]},
            "batch_stats": {"mean": args["mean"], "var": args["var"]},
        },
        args["x"],
        mutable=["batch_stats"],
    )
    wide = {name: np.repeat(params[f"group_{name}"], 2) for name in ("scale", "bias")}
    expected = group.clone(epsilon=1e-5).apply({"params": wide}, between)
    assert_close(y, expected, 1e-5)
    assert_close(stats.mean, updated["batch_stats"]["mean"], 1e-6)
    assert_close(stats.var, updated["batch_stats"]["var"], 1e-5)


@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
@pytest.mark.parametrize("mask", [None, (3, 2, 1)], ids=["", "mask"])
def test_derivatives_of_first_and_second_order(train, mask, x64):
    p = problem((3, 2, 4), mask=mask)
    stats = BatchStats(jnp.asarray(p["mean"], float), jnp.asarray(p["var"], float))

    def f(x, stats, params):
        return batch_channel_norm(
            x,
            stats,
            **params,
            use_running_average=not train,
            num_groups=2,
            epsilon=1e-2,
            mask=None if mask is None else jnp.asarray(p["mask"]),
        )

    args = jax.tree.map(lambda a: jnp.asarray(a, float), (p["x"], stats, p["params"]))
    check_grads(jax.jit(f), args, order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)
    if train:
        check_grads(jax.jit(f), args, order=2, modes=["rev"], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@given(data=st.data())
def test_the_first_half_undoes_any_change_of_units(data):
    """A channel's scale and shift are gone after it, so also after both."""
    channels, groups = data.draw(st.sampled_from([(2, 1), (4, 2), (6, 3)]))
    shape = (data.draw(st.integers(2, 4)), data.draw(st.integers(2, 3)), channels)
    args = problem(shape, num_groups=groups, seed=data.draw(st.integers(0, 99)))
    factor = 2.0 ** np.array(data.draw(st.lists(st.integers(-3, 3), min_size=6, max_size=6)))
    shift = data.draw(st.integers(-4, 4))
    options = {"use_running_average": False, "num_groups": groups, "epsilon": 1e-12}
    with jax.enable_x64(True):
        y, *_ = run(**args, **options)
        moved, *_ = run(**args | {"x": args["x"] * factor[:channels] + shift}, **options)
        assert_close(moved, y, 1e-6)


def test_masked_values_do_not_matter():
    args = problem((4, 6, 4), mask=(4, 6, 1))
    poisoned = args | {"x": np.where(args["mask"], args["x"], np.nan)}
    options = {"use_running_average": False, "num_groups": 2, "dtype": "float32"}
    valid = np.broadcast_to(args["mask"], args["x"].shape)
    dy = np.where(valid, 1.0, 0.0)
    for rate in (None, 0.3):
        y, stats, grads = run(**args, dy=dy, rate=rate, **options)
        y2, stats2, grads2 = run(**poisoned, dy=dy, rate=rate, **options)
        np.testing.assert_array_equal(np.where(valid, y, 0), np.where(valid, y2, 0))
        jax.tree.map(np.testing.assert_array_equal, (stats, grads), (stats2, grads2))
