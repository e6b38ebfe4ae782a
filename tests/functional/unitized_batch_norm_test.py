"""The layer against the float64 reference: shapes, axes, masks, offsets, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from tests import layer, oracle
from tests.oracle import assert_close
from unitnorm_jax import functional
from unitnorm_jax.functional._numerics import reference

pytestmark = pytest.mark.rounding

UNITS = ["reference", "sample", "rms", "position", 0.3]
each_unit = pytest.mark.parametrize("unit", UNITS)


def problem(shape, axis=-1, offset=0.0, seed=0, mask=None):
    """Everything the layer takes, exact in float32; channels have a mean of ``offset`` stds."""
    rng = np.random.default_rng(seed)
    features = [shape[a] for a in sorted(a % len(shape) for a in np.atleast_1d(axis))]
    spread = rng.uniform(
        0.5, 2, [s if a in np.atleast_1d(axis) % len(shape) else 1 for a, s in enumerate(shape)]
    )
    draw = {
        "x": spread * (rng.standard_normal(shape) + offset),
        "mean": offset + rng.standard_normal(features),
        "var": rng.uniform(0.5, 2, features),
        "dy": rng.standard_normal(shape),
    }
    out = {k: v.astype(np.float32) for k, v in draw.items()}
    out["params"] = {
        "alpha": rng.uniform(0, 1, features).astype(np.float32),
        "scale": rng.standard_normal(features).astype(np.float32),
        "bias": rng.standard_normal(features).astype(np.float32),
    }
    if mask is not None:
        out["mask"] = rng.uniform(size=mask) < 0.6
        out["dy"] *= out["mask"]
    return out


def assert_matches_reference(problem, tol, grad_tol, dtype="float32", **config):
    y, stats, grads = layer.value_and_grads(**problem, **config, dtype=dtype)
    config.pop("use_fast_variance", None)
    expected, expected_grads = oracle.value_and_grads(**problem, **config)
    mask = np.broadcast_to(problem.get("mask", True), y.shape)
    assert_close(y, np.where(mask, expected.y, y), tol, "y")
    assert_close(stats.mean, expected.mean, tol, "mean")
    assert_close(stats.var, expected.var, tol, "var")
    for name, value in expected_grads.items():
        assert_close(grads[name], value, grad_tol, name)
    return y, expected.y


SHAPES = {
    "dense": ((6, 5), -1, 0, None),
    "images": ((4, 3, 2, 5), -1, 0, None),
    "channels first": ((4, 5, 3, 2), 1, 0, None),
    "sample axis last": ((3, 5, 2, 4), 1, -1, None),
    "sequence, time first": ((7, 4, 3), 2, 1, None),
    "two feature axes": ((4, 3, 2, 5), (1, -1), 0, None),
    "two feature axes, dense": ((6, 2, 3), (-1, -2), 0, None),
    "mask of samples": ((6, 3, 2, 5), -1, 0, (6, 1, 1, 1)),
    "mask of positions": ((4, 6, 5), -1, 0, (4, 6, 1)),
    "mask of values": ((4, 6, 5), -1, 0, (4, 6, 5)),
    "mask by broadcasting": ((4, 6, 5), -1, 0, (6, 1)),
    "mask, channels first": ((4, 5, 3, 2), 1, 0, (4, 1, 3, 2)),
}


# Every unit with two of the shapes; every shape with the two units that sum differently.
PAIRS = [
    (name, unit)
    for name in SHAPES
    for unit in UNITS
    if unit in ("reference", "position") or name in ("images", "mask of values")
]


@pytest.mark.parametrize(
    ("name", "unit", "train"),
    [(*pair, True) for pair in PAIRS] + [(*pair, False) for pair in PAIRS[::2]],
)
def test_matches_reference(name, train, unit, x64):
    shape, axis, sample_axis, mask = SHAPES[name]
    assert_matches_reference(
        problem(shape, axis, mask=mask),
        1e-12,
        1e-10,
        dtype="float64",
        use_running_average=not train,
        axis=axis,
        sample_axis=sample_axis,
        unit=unit,
        epsilon=1e-3,
        bessel_correction=unit == "reference",
    )


@each_unit
@pytest.mark.parametrize("fast", [True, False], ids=["one pass", "two passes"])
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
@pytest.mark.parametrize("mask", [None, (8, 4, 1)], ids=["", "mask"])
def test_offsets_in_float32(offset, fast, mask, unit):
    """From the first call: the running mean knows nothing of the offset yet."""
    inputs = problem((8, 4, 5), offset=offset, mask=mask)
    inputs["mean"], inputs["var"] = np.zeros(5, np.float32), np.ones(5, np.float32)
    assert_matches_reference(
        inputs, 1e-5, 1e-5, use_running_average=False, unit=unit, use_fast_variance=fast
    )


@pytest.mark.parametrize("unit", ["reference", "position"])
def test_offsets_of_replicas_under_vmap(unit):
    """One replica loses digits in one pass, the others do not: each is as if alone."""
    problems = [problem((8, 4, 5), offset=offset) for offset in (0.0, 1e4, 10.0)]
    config = {"use_running_average": False, "unit": unit}
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *problems)
    args = (stacked[k] for k in ("x", "mean", "var", "params"))
    y, stats = jax.vmap(lambda *args: layer.forward(*args, **config))(*args)
    for i, p in enumerate(problems):
        expected, _ = oracle.value_and_grads(**p, **config)
        assert_close(y[i], expected.y, 1e-5)
        assert_close(stats.var[i], expected.var, 1e-5)


@each_unit
@pytest.mark.parametrize("offset", [0.0, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("quiet", [1e-2, 1e-3])
def test_a_quiet_sample_among_loud_ones(quiet, offset, unit):
    """Its norm is a small difference of moments about anything but the mean."""
    inputs = problem((8, 16, 5))
    x = inputs["x"].astype(float)
    x[0] *= quiet
    inputs["x"] = (x + offset * x.std((0, 1))).astype(np.float32)
    assert_matches_reference(inputs, 1e-5, 2e-5, use_running_average=False, unit=unit)


@given(data=st.data())
def test_any_shape_axis_dtype_offset_and_mask(data):
    rank = data.draw(st.integers(2, 4), "rank")
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank), "shape"))
    order = data.draw(st.permutations(range(rank)), "order")
    sample_axis, axis = order[0], tuple(order[1 : data.draw(st.integers(2, rank), "features")])
    dtype = data.draw(st.sampled_from(["float32", "bfloat16", "float16"]), "dtype")
    offset = data.draw(st.sampled_from([0.0, 10.0, 1e4] if dtype == "float32" else [0.0]))
    masked = [data.draw(st.sampled_from([1, size])) for size in shape]
    mask = tuple(masked) if data.draw(st.booleans(), "mask") else None
    unit = data.draw(st.sampled_from(UNITS), "unit")
    train = data.draw(st.booleans(), "train")
    args = problem(shape, axis, offset, data.draw(st.integers(0, 99), "seed"), mask)
    if mask is not None:  # every channel has a valid value
        args["mask"][(0,) * rank] = True
        args["mask"] |= ~args["mask"].any(
            tuple(a for a in range(rank) if a not in axis), keepdims=True
        )
    args["x"] = np.asarray(jnp.asarray(args["x"], dtype).astype(jnp.float32))
    config = {"axis": axis, "sample_axis": sample_axis, "unit": unit, "epsilon": 1e-3}
    stats = args["mean"], args["var"]
    y, new = layer.forward(
        jnp.asarray(args["x"], dtype),
        *stats,
        args["params"],
        args.get("mask"),
        use_running_average=not train,
        dtype=dtype,
        **config,
    )
    expected = reference.unitized_batch_norm(
        args["x"].astype(float),
        *(s.astype(float) for s in stats),
        **{k: v.astype(float) for k, v in args["params"].items()},
        mask=args.get("mask"),
        use_running_average=not train,
        **config,
    )
    assert y.dtype == dtype
    valid = np.broadcast_to(args.get("mask", True), shape)
    tol = 2e-5 if dtype == "float32" else float(jnp.finfo(dtype).eps)
    assert_close(np.where(valid, y.astype(np.float32), 0), np.where(valid, expected.y, 0), tol)
    assert_close(new.mean, expected.mean, 2e-6)
    assert_close(new.var, expected.var, 2e-5)


@each_unit
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_derivatives_of_first_and_second_order(train, unit, x64):
    p = problem((3, 2, 4))
    stats = functional.BatchStats(*(jnp.asarray(p[k], float) for k in ("mean", "var")))

    def run(x, stats, params):
        return functional.unitized_batch_norm(
            x, stats, **params, use_running_average=not train, unit=unit, epsilon=1e-2
        )

    params = {k: jnp.asarray(v, float) for k, v in p["params"].items()}
    args = jnp.asarray(p["x"], float), stats, params
    check_grads(jax.jit(run), args, order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)
    if unit in ("reference", "position"):
        check_grads(jax.jit(run), args, order=2, modes=["rev"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("x_dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("dtype", [None, "bfloat16", "float32"])
@pytest.mark.parametrize("scale_dtype", [None, "bfloat16", "float32"])
def test_dtypes(x_dtype, dtype, scale_dtype):
    """The result's follows x, scale and bias, not alpha; the averages keep their own."""
    x = jnp.ones((2, 3), x_dtype)
    scale = None if scale_dtype is None else jnp.ones(3, scale_dtype)
    stats = functional.BatchStats(jnp.zeros(3, jnp.float32), jnp.ones(3, jnp.bfloat16))
    y, new = functional.unitized_batch_norm(
        x, stats, jnp.zeros(3), scale, use_running_average=False, dtype=dtype
    )
    assert y.dtype == (dtype or jnp.promote_types(x_dtype, scale_dtype or x_dtype))
    assert (new.mean.dtype, new.var.dtype) == (jnp.float32, jnp.bfloat16)
