"""What is masked must not matter; padding must be invisible; also across devices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from tests import layer
from tests.functional.unitized_batch_norm_test import each_unit, problem
from tests.oracle import assert_close
from unitnorm_jax import functional

each_mode = pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
each_poison = pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30])


@each_unit
@each_mode
@each_poison
@pytest.mark.parametrize("fast", [True, False], ids=["one pass", "two passes"])
def test_poison_in_masked_places(poison, train, unit, fast):
    clean = problem((4, 6, 3), mask=(4, 6, 1))
    clean["mask"][2] = False  # a sample of nothing
    clean["dy"] *= clean["mask"]
    poisoned = clean | {"x": np.where(clean["mask"], clean["x"], poison)}
    config = {"use_running_average": not train, "unit": unit, "use_fast_variance": fast}
    y, stats, grads = layer.value_and_grads(**clean, **config)
    y_poisoned, stats_poisoned, grads_poisoned = layer.value_and_grads(**poisoned, **config)
    valid = np.broadcast_to(clean["mask"], y.shape)
    np.testing.assert_array_equal(y_poisoned[valid], y[valid])
    for name, grad in (stats._asdict() | grads).items():
        assert np.isfinite(grad).all(), name
        np.testing.assert_array_equal(
            (stats_poisoned._asdict() | grads_poisoned)[name], grad, err_msg=name
        )
    np.testing.assert_array_equal(np.where(valid, 0, grads["x"]), 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("epsilon", [1e-5, 0.0])
@each_mode
def test_masked_results_are_bounded(train, epsilon, dtype):
    """Whatever stands there: a later sum with a product with the mask must not be 0 times inf."""
    p = problem((4, 6, 3), mask=(4, 6, 1))
    p["mask"][2] = False  # a sample of nothing
    info = jnp.finfo(dtype)
    for poison in (info.max, info.min, np.nan, -np.inf, min(1e12, float(info.max))):
        x = jnp.where(p["mask"], p["x"], poison).astype(dtype)

        def loss(x, params, mask=p["mask"], stats=(p["mean"], p["var"])):
            y, _ = functional.unitized_batch_norm(
                x,
                functional.BatchStats(*map(jnp.asarray, stats)),
                **params,
                mask=mask,
                use_running_average=not train,
                epsilon=epsilon,
                dtype=dtype,
            )
            return jnp.sum(y.astype(jnp.float32)), y

        grads, y = jax.grad(loss, argnums=(0, 1), has_aux=True)(x, p["params"])
        for leaf in jax.tree.leaves((y, grads)):
            assert np.isfinite(np.asarray(leaf, np.float32)).all(), poison


@pytest.mark.parametrize("poison", [1e12, 1e20, 1e38])
def test_a_channel_of_one_value_does_not_reach_the_others(poison):
    p = problem((4, 6, 3), mask=(4, 6, 3))
    p["mask"][..., 1] = False
    p["mask"][0, 0, 1] = True
    p["x"] = np.where(p["mask"], p["x"], np.float32(poison))
    p["dy"] = np.ones_like(p["dy"])  # in masked places, too
    out = layer.value_and_grads(**p, use_running_average=False)
    for leaf in jax.tree.leaves(out):
        assert np.isfinite(leaf).all()


@each_unit
@each_mode
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_without_epsilon_a_channel_of_nothing_spoils_itself_alone(alpha, train, unit):
    p = problem((4, 6, 3), mask=(4, 6, 3))
    p["mask"][...] = True
    p["mask"][..., 1] = False
    p["var"][1] = 0
    p["params"]["alpha"][:] = alpha
    config = {"use_running_average": not train, "unit": unit, "epsilon": 0.0}
    y, stats = layer.forward(*(p[k] for k in ("x", "mean", "var", "params", "mask")), **config)
    others = [0, 2]
    q = {k: v[..., others] for k, v in p.items() if k not in ("params", "dy")}
    params = {k: v[others] for k, v in p["params"].items()}
    if unit != "rms":  # which counts channels
        expected, _ = layer.forward(q["x"], q["mean"], q["var"], params, q["mask"], **config)
        assert_close(y[..., others], expected, 1e-6)
    assert np.isfinite(y[..., others]).all()
    chex.assert_tree_all_finite(stats)


@each_unit
@each_mode
def test_padding_is_invisible(train, unit):
    """A longer sequence, masked behind its end, is the short sequence."""
    short = problem((4, 6, 3))
    tail = ((0, 0), (0, 5), (0, 0))
    long = short | {
        "x": np.pad(short["x"], tail, constant_values=7),
        "dy": np.pad(short["dy"], tail),
    }
    long["mask"] = np.arange(11)[None, :, None] < 6
    config = {"use_running_average": not train, "unit": unit}
    y, stats, grads = layer.value_and_grads(**short, **config)
    y_long, stats_long, grads_long = layer.value_and_grads(**long, **config)
    assert_close(y_long[:, :6], y, 1e-6)
    jax.tree.map(functools.partial(assert_close, tol=1e-6), stats_long, stats)
    grads_long["x"] = grads_long["x"][:, :6]
    jax.tree.map(functools.partial(assert_close, tol=1e-5), grads_long, grads)


@each_mode
@pytest.mark.parametrize("unit", ["reference", "sample", "rms", 0.3])
def test_masked_places_are_normalized_too(train, unit):
    """As in Flax: y = a (x - mean) + b with the sample's a, whatever the mask."""
    p = problem((4, 6, 3), mask=(4, 6, 1))
    p["mask"][:, 0] = True
    y, *_ = layer.value_and_grads(**p, use_running_average=not train, unit=unit)
    a = np.empty((4, 1, 3))
    for n, c in np.ndindex(4, 3):  # the line through each sample's valid points
        valid = p["mask"][n, :, 0]
        x_n, y_n = p["x"][n, :, c].astype(float), np.asarray(y[n, :, c], float)
        mean = p["mean"][c]
        if train:
            mean = p["x"][..., c][p["mask"][..., 0]].mean()
        a[n, 0, c] = np.dot((x_n - mean)[valid], (y_n - p["params"]["bias"][c])[valid]) / np.sum(
            (x_n - mean)[valid] ** 2
        )
        assert_close(y_n, a[n, 0, c] * (x_n - mean) + p["params"]["bias"][c], 1e-5)


def test_a_full_mask_is_no_mask():
    p = problem((4, 6, 3))
    plain = layer.value_and_grads(**p, use_running_average=False)
    masked = layer.value_and_grads(**p, mask=np.ones((1, 6, 1), bool), use_running_average=False)
    jax.tree.map(functools.partial(assert_close, tol=2e-6), masked, plain)


def _on_devices(run, mapping):
    specs = (P(), P("d"), P("d"), P("d")), (P("d"), P(), (P(), P("d")))
    if mapping == "pmap":
        mapped = jax.pmap(run, "d", in_axes=(None, 0, 0, 0), out_axes=(0, None, (None, 0)))
        split = lambda a: a.reshape(8, -1, *a.shape[1:])  # noqa: E731
        join = lambda a: a.reshape(-1, *a.shape[2:])  # noqa: E731

        def call(params, *batch):
            y, stats, (dp, dx) = mapped(params, *map(split, batch))
            return join(y), stats, (dp, join(dx))

        return call
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=specs[0], out_specs=specs[1]))


@pytest.mark.parametrize("mapping", ["pmap", "shard_map"])
@pytest.mark.parametrize(
    ("unit", "fast"),
    [
        ("reference", True),
        ("reference", False),
        ("position", True),
        ("position", False),
        (0.3, True),
    ],
)
def test_unequal_counts_on_devices(mapping, unit, fast):
    """Eight devices, one with nothing valid, are one device with the whole batch."""
    p = problem((16, 5, 3), offset=30.0, mask=(16, 5, 1))
    p["mask"][0:2] = True
    p["mask"][6:8] = False
    x = jnp.where(p["mask"], p["x"], jnp.nan)
    stats = functional.BatchStats(jnp.zeros(3), jnp.ones(3))
    layer_fn = functools.partial(
        functional.unitized_batch_norm,
        use_running_average=False,
        unit=unit,
        use_fast_variance=fast,
    )

    def outputs(mean, axis_name, params, x, mask, dy):
        def loss(params, x):
            y, new = layer_fn(x, stats, **params, mask=mask, axis_name=axis_name)
            return mean(jnp.sum(jnp.where(mask, y, 0) * dy)), (y, new)

        (dp, dx), (y, new) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
        return y, new, (dp, dx)

    def sharded(params, x, mask, dy):
        pmean = functools.partial(jax.lax.pmean, axis_name="d")
        y, new, (dp, dx) = outputs(pmean, "d", params, x, mask, dy)
        # pmap leaves the replicated gradients apart, shard_map has already summed them.
        return y, new, (pmean(dp) if mapping == "pmap" else dp, dx)

    params = jax.tree.map(jnp.asarray, p["params"])
    args = params, x, jnp.asarray(p["mask"]), jnp.asarray(p["dy"])
    y, new, (dp, dx) = _on_devices(sharded, mapping)(*args)
    y_one, new_one, (dp_one, dx_one) = jax.jit(functools.partial(outputs, lambda a: a, None))(*args)
    assert_close(jnp.where(args[2], y, 0), jnp.where(args[2], y_one, 0), 1e-5)
    close = functools.partial(assert_close, tol=1e-5)
    jax.tree.map(close, new, new_one)
    jax.tree.map(close, dp, jax.tree.map(lambda a: a / 8, dp_one))
    # Each device's dx: of the mean loss under shard_map, of the sum's eighth summed under pmap.
    close(dx * (8 if mapping == "shard_map" else 1), dx_one)
