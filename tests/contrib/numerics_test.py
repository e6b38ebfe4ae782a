"""The layers with batch statistics where digits, masks and dtypes are hard; oracle: float64."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracle import assert_close
from unitnorm_jax import functional as F
from unitnorm_jax.contrib.batch_channel_norm import batch_channel_norm
from unitnorm_jax.contrib.batch_kalman_norm import Moments, batch_kalman_norm, kalman_update
from unitnorm_jax.contrib.estimated_batch_norm import estimated_batch_norm
from unitnorm_jax.contrib.independent_component import IndependentComponent

RNG = np.random.default_rng(0)
SHAPE = (16, 3, 2, 4)
Z = RNG.normal(size=SHAPE).astype(np.float32)
SPREAD = np.array([0.5, 1, 2, 1], np.float32)
MASK = RNG.random((16, 3, 2, 1)) < 0.7
DY = RNG.normal(size=SHAPE)


def kalman(x: Any, stats: Any, *, mask: Any = None, **options: Any) -> Any:
    del mask  # it has none
    moments = Moments(*(a[None] for a in stats))
    y, _, new = batch_kalman_norm(x, stats, moments, slice_size=4, gain=0.5, **options)
    return y, new


def estimated(x: Any, stats: Any, **options: Any) -> Any:
    return estimated_batch_norm(x, stats, rate=0.3, **options)


METHODS = {
    "batch_norm": F.batch_norm,
    "batch_channel_norm": functools.partial(batch_channel_norm, num_groups=2),
    "batch_channel_norm-rate": functools.partial(batch_channel_norm, num_groups=2, rate=0.3),
    "estimated_batch_norm": estimated,
    "batch_kalman_norm": kalman,
}
MASKED = {name: method for name, method in METHODS.items() if "kalman" not in name}
each = pytest.mark.parametrize("name", METHODS)
each_if_slow = pytest.mark.parametrize(  # the core's, and the others among the slow tests
    "name",
    [
        "batch_norm",
        *(pytest.param(n, marks=pytest.mark.slow) for n in METHODS if n != "batch_norm"),
    ],
)
each_masked = pytest.mark.parametrize("name", MASKED)


@functools.partial(jax.jit, static_argnames=("name", "train", "options"))
def run(name: str, x: Any, stats: Any, mask: Any, train: bool, options: Any = ()) -> Any:
    """Output, statistics after it, and the gradient of ``sum(y * DY)``."""

    def loss(x: Any) -> Any:
        y, new = METHODS[name](x, stats, use_running_average=not train, mask=mask, **dict(options))
        return jnp.sum(y * jnp.asarray(DY, y.dtype)), (y, new)

    (_, (y, new)), dx = jax.value_and_grad(loss, has_aux=True)(x)
    return y, new, dx


def near(x: np.ndarray) -> F.BatchStats:
    """Running statistics as after some training on x."""
    mean, var = x.mean((0, 1, 2), dtype=np.float64), x.var((0, 1, 2), dtype=np.float64)
    return F.BatchStats(*(jnp.asarray(a, np.float32) for a in (mean + 0.1, 1.1 * var)))


def in_float64(name: str, x: Any, stats: Any, mask: Any, train: bool) -> Any:
    with jax.enable_x64(True):
        x, stats = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (x, stats))
        return jax.tree.map(np.asarray, run(name, x, stats, mask, train))


@each_if_slow
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
def test_a_mean_of_ten_thousand_standard_deviations(name, train, masked):
    x = (1e4 * SPREAD + SPREAD * Z).astype(np.float32)
    mask = jnp.asarray(MASK) if masked else None
    args = name, jnp.asarray(x), near(x), mask, train
    (y, new, dx), (y64, new64, dx64) = run(*args), in_float64(*args)
    valid = np.broadcast_to(MASK if masked else True, SHAPE)
    assert_close(np.where(valid, y, 0), np.where(valid, y64, 0), 1e-5)
    for field in ("mean", "var"):
        assert_close(getattr(new, field), getattr(new64, field), 1e-5)
    assert_close(dx, dx64, 1e-4)


def test_the_independent_component_layer_is_exact():
    """With Flax's one pass its variance is garbage here."""
    x = jnp.asarray(3000 + Z)
    layer = IndependentComponent(rate=0.0, momentum=0.0)
    variables = layer.init(jax.random.key(0), x, use_running_average=False)
    y, updated = layer.apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    exact = np.asarray(x, np.float64)
    var = exact.var((0, 1, 2))
    assert_close(y, (exact - exact.mean((0, 1, 2))) / np.sqrt(var + 1e-5), 1e-5)
    assert_close(updated["batch_stats"]["var"], var, 1e-5)


@pytest.mark.parametrize("axis", [(-1, 1), (3, 1), (2, 3), (1,), 1])
def test_batch_norm_over_several_axes(axis):
    """As Flax's; feature axes are ascending there too."""
    flat = axis if isinstance(axis, tuple) else (axis,)
    features = sorted(a % 4 for a in flat)
    over = tuple(i for i in range(4) if i not in features)
    shape = tuple(SHAPE[i] for i in features)
    stats = F.BatchStats(jnp.zeros(shape), jnp.ones(shape))
    scale, bias = (jnp.asarray(a.astype(np.float32)) for a in RNG.normal(size=(2, *shape)))
    y, new = F.batch_norm(
        jnp.asarray(Z), stats, scale, bias, use_running_average=False, axis=axis, momentum=0.0
    )
    mean, var = Z.mean(over, keepdims=True), Z.var(over, keepdims=True)
    scale, bias = (np.expand_dims(a, over) for a in (scale, bias))
    assert_close(y, scale * (Z - mean) / np.sqrt(var + 1e-5) + bias, 1e-5)
    assert_close(new.var, var.reshape(shape), 1e-5)
    inferred, _ = F.batch_norm(jnp.asarray(Z), new, use_running_average=True, axis=axis)
    assert_close(inferred, (Z - mean) / np.sqrt(var + 1e-5), 1e-5)


@each
def test_nan_is_seen_in_the_statistics(name):
    """A running variance that stays finite hides that training has failed."""
    x = jnp.asarray(Z).at[1, 0, 0, 2].set(jnp.nan)
    y, new, _ = run(name, x, near(Z), None, True)
    assert np.isnan(new.mean[2])
    assert np.isnan(new.var[2])
    assert np.isnan(y[..., 2]).any()
    assert np.isfinite(new.var[np.array([0, 1, 3])]).all()


@each
def test_one_channel_of_a_constant_is_no_nan(name):
    x = Z.copy()
    x[..., 1] = 1 / 3
    y, new, dx = run(name, jnp.asarray(x), near(Z), None, True)
    assert all(np.isfinite(a).all() for a in (y, *new, dx))


@each_if_slow
def test_statistics_in_float16(name):
    """Sums of 70,000 values overflow in float16, counts do above 2,048; means need neither."""
    x = np.asarray(3 * RNG.normal(size=(70_000, 4)), np.float16)
    stats = F.BatchStats(jnp.zeros(4, np.float16), jnp.ones(4, np.float16))
    options = {"use_running_average": False, "axis": -1}
    method = METHODS[name]
    if name == "batch_kalman_norm":
        moments = Moments(jnp.zeros((1, 4), np.float16), 9 * jnp.ones((1, 4), np.float16))
        y, _, new = batch_kalman_norm(jnp.asarray(x), stats, moments, gain=0.5, **options)
    else:
        y, new = method(jnp.asarray(x), stats, **options)
    assert y.dtype == new.var.dtype == np.float16
    assert np.isfinite(np.asarray(new.var)).all()
    assert 0.5 < float(np.std(np.asarray(y, np.float32))) < 2
    assert 0.01 <= float(new.var.min()) - 1 <= 8.5


GROUPS = [[0, 1, 2], [3, 4, 5, 6, 7]]


@each_if_slow
def test_groups_of_devices_of_unequal_sizes(name):
    """The statistics of each group are those of its values: `lax.pmean` divides by the first."""
    stats, options = near(Z), {"use_running_average": False}
    method = METHODS[name]
    if name == "batch_kalman_norm":  # without slices, whose statistics cross devices

        def method(x: Any, stats: Any, **options: Any) -> Any:
            moments = Moments(*(a[None] for a in stats))
            y, _, new = batch_kalman_norm(x, stats, moments, gain=0.5, **options)
            return y, new

    def shard(x: Any) -> Any:
        return method(x, stats, axis_name="i", axis_index_groups=GROUPS, **options)

    shards = jnp.asarray(Z).reshape(8, 2, *SHAPE[1:])
    y, new = jax.pmap(shard, "i")(shards)
    for group in GROUPS:
        whole = shards[np.array(group)].reshape(-1, *SHAPE[1:])
        y_group, new_group = method(whole, stats, **options)
        assert_close(y[np.array(group)].reshape(whole.shape), y_group, 1e-5)
        for device in group:
            assert_close(new.mean[device], new_group.mean, 1e-5)
            assert_close(new.var[device], new_group.var, 1e-5)


def test_the_guard_of_kalman_counts_unequal_groups():
    """Ratios of 2 on three devices and of 4 on five, against a guard of 3.2."""
    ratios = jnp.asarray([2.0] * 3 + [4.0] * 5)

    def update(ratio: Any) -> Any:
        one = jnp.ones((1, 1))
        predicted = Moments(mean=one, var=ratio * one)
        return kalman_update(
            predicted,
            Moments(0 * one, one),
            gain=0.5,
            guard=3.2,
            axis_name="i",
            axis_index_groups=GROUPS,
        ).mean[0, 0]

    np.testing.assert_array_equal(jax.pmap(update, "i")(ratios), [0.5] * 3 + [0.0] * 5)


@each_masked
@pytest.mark.parametrize("fill", [3.4e38, -3.4e38, 1e12, 1e20, np.inf, np.nan])
def test_masked_places_stay_bounded(name, fill):
    """Whatever stands there; and no gradient is other than finite."""
    mask = np.broadcast_to(MASK, SHAPE).copy()
    mask[..., 3] = False
    mask[0, 0, 0, 3] = True  # a channel with one valid value
    x = np.where(mask, Z, fill).astype(np.float32)
    y, new, dx = run(name, jnp.asarray(x), near(Z), jnp.asarray(mask), True)
    y0, new0, _ = run(name, jnp.asarray(np.where(mask, Z, 0)), near(Z), jnp.asarray(mask), True)
    assert np.isfinite(y).all()
    assert np.isfinite(y.sum())
    assert np.isfinite(dx).all()
    assert_close(np.where(mask, y, 0), np.where(mask, y0, 0), 1e-5)
    jax.tree.map(functools.partial(assert_close, tol=1e-5), new, new0)


@each_masked
def test_epsilon_zero_and_a_channel_masked_out(name):
    mask = np.ones(SHAPE, bool)
    mask[..., 2] = False
    mask[3] = False  # a sample as well
    options = (("epsilon", 0.0),)
    y, new, _ = run(name, jnp.asarray(Z), near(Z), jnp.asarray(mask), True, options)
    others = mask.copy()
    assert np.isfinite(np.asarray(y)[others]).all()
    assert np.isfinite(new.var).all()

    def loss(x: Any) -> Any:
        y, _ = METHODS[name](
            x, near(Z), use_running_average=False, mask=jnp.asarray(mask), epsilon=0.0
        )
        return jnp.sum(jnp.where(mask, y, 0) * DY.astype(np.float32))

    assert np.isfinite(np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(Z)))[others]).all()
