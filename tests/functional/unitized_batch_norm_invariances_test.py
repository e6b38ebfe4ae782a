"""What the mathematics promises, without a reference."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.functional.unitized_batch_norm_test import each_unit, problem
from tests.oracle import assert_close
from unitnorm_jax import functional

each_mode = pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])


def run(p, alpha=None, scale=None, bias=None, *, train=True, x=None, **config):
    stats = functional.BatchStats(jnp.asarray(p["mean"]), jnp.asarray(p["var"]))
    x = jnp.asarray(p["x"] if x is None else x)
    alpha = p["params"]["alpha"] if alpha is None else alpha
    return functional.unitized_batch_norm(
        x, stats, jnp.asarray(alpha), scale, bias, use_running_average=not train, **config
    )


@each_mode
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 2, 5)])
def test_unit_vectors(shape, train):
    y, _ = run(problem(shape), np.ones(5, np.float32), train=train, unit="sample", epsilon=1e-12)
    assert_close(jnp.sum(y**2, tuple(range(1, y.ndim))), np.ones(shape[0]), 1e-5)


@each_mode
def test_unit_root_mean_square(train):
    p = problem((4, 3, 2, 5))
    y, _ = run(p, np.ones(5, np.float32), train=train, unit="rms", epsilon=1e-12)
    assert_close(jnp.mean(y**2, (1, 2, 3)), np.ones(4), 1e-5)


@each_mode
def test_unit_vectors_at_every_position(train):
    p = problem((4, 3, 2, 5))
    y, _ = run(p, np.ones(5, np.float32), train=train, unit="position", epsilon=1e-12)
    assert_close(jnp.sum(y**2, -1), np.ones((4, 3, 2)), 1e-5)


@each_mode
def test_mean_square_of_the_reference(train):
    """At alpha = 1 its mean square is P / C."""
    p = problem((4, 3, 2, 5))
    y, _ = run(p, np.ones(5, np.float32), train=train, epsilon=1e-12)
    assert_close(jnp.mean(y**2, (1, 2, 3)), np.full(4, 6 / 5), 1e-5)


@pytest.mark.parametrize("unit", ["sample", "position"])
@each_mode
def test_dense_units_coincide(unit, train):
    p = problem((6, 5))
    assert_close(run(p, train=train, unit=unit)[0], run(p, train=train)[0], 1e-6)


@pytest.mark.parametrize(("unit", "kappa"), [("reference", 1 / 6), ("sample", 6.0), ("rms", 0.2)])
@each_mode
def test_names_are_numbers(unit, kappa, train):
    p = problem((4, 3, 2, 5))
    y, _ = run(p, train=train, unit=kappa)
    assert_close(y, run(p, train=train, unit=unit)[0], 1e-6)
    assert np.abs(y - run(p, train=train, unit=1.1 * kappa)[0]).max() > 1e-3


@each_unit
def test_scale_and_offset_of_a_channel_do_not_matter(unit):
    p = problem((4, 3, 2, 5))
    factor = np.float32([2, 0.5, 1, -4, 16])  # powers of two round nothing away
    y, _ = run(p, unit=unit, epsilon=1e-12)
    moved, _ = run(p, unit=unit, epsilon=1e-12, x=factor * (p["x"] + 3))
    assert_close(moved, np.asarray(y) * np.sign(factor), 1e-5)


@each_unit
@pytest.mark.parametrize("permuted", ["samples", "positions", "channels"])
def test_permutations_commute(unit, permuted):
    p = problem((4, 3, 2, 5))
    axis = ["samples", "positions", "", "channels"].index(permuted)
    order = np.random.default_rng(1).permutation(p["x"].shape[axis])
    q = dict(p, x=np.take(p["x"], order, axis))
    alpha = p["params"]["alpha"]
    y, _ = run(q, alpha[order] if permuted == "channels" else alpha, unit=unit)
    assert_close(y, np.take(np.asarray(run(p, unit=unit)[0]), order, axis), 1e-6)


@each_unit
@each_mode
def test_alpha_mixes_linearly(unit, train):
    """y(alpha) is the straight line through batch normalization and its unitized form."""
    p = problem((4, 3, 2, 5))
    zero, half, two = (
        run(p, np.full(5, a, np.float32), train=train, unit=unit)[0] for a in (0, 0.5, 2)
    )
    assert_close(two - zero, 4 * (half - zero), 1e-5)
    assert np.abs(half - zero).max() > 1e-2


@each_unit
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
@each_mode
def test_is_batch_norm_at_alpha_zero(unit, masked, x_dtype, train):
    p = problem((4, 6, 5), mask=(4, 6, 1) if masked else None)
    mask = jnp.asarray(p["mask"]) if masked else None
    norm = nn.BatchNorm(use_running_average=not train)
    params = {k: jnp.asarray(p["params"][k]) for k in ("scale", "bias")}
    stats = {k: jnp.asarray(p[k]) for k in ("mean", "var")}

    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def flax(params, x):
        y, updated = norm.apply(
            {"params": params, "batch_stats": stats}, x, mask=mask, mutable=["batch_stats"]
        )
        return jnp.sum(y.astype(float) * p["dy"]), (y, updated["batch_stats"])

    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def ours(params, x):
        y, new = functional.unitized_batch_norm(
            x,
            functional.BatchStats(**stats),
            jnp.zeros(5),
            **params,
            mask=mask,
            unit=unit,
            use_running_average=not train,
        )
        return jnp.sum(y.astype(float) * p["dy"]), (y, new._asdict())

    x = jnp.asarray(p["x"], x_dtype)
    (expected_grads, expected), (grads, out) = flax(params, x), ours(params, x)
    assert out[0].dtype == expected[0].dtype
    valid = np.broadcast_to(True if mask is None else mask, x.shape)
    assert_close(jnp.where(valid, out[0], 0), jnp.where(valid, expected[0], 0), 1e-5)
    close = functools.partial(assert_close, tol=1e-5)
    jax.tree.map(close, out[1], expected[1])
    jax.tree.map(close, grads[0], expected_grads[0])
    assert_close(grads[1], expected_grads[1], 1e-5 if x_dtype == "float32" else 2**-7)
