"""Recalibration and tracking of models: exact where theory says so."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contrib.noise_aware_batch_norm.noisy_network import BATCHES, Net, setup
from tests.oracle import assert_close
from unitnorm_jax.contrib.batch_channel_norm import BatchChannelNorm
from unitnorm_jax.contrib.batch_kalman_norm import BatchKalmanNorm
from unitnorm_jax.contrib.estimated_batch_norm import EstimatedBatchNorm
from unitnorm_jax.contrib.noise_aware_batch_norm import (
    collect_statistics,
    drift_noise,
    noisy_outputs,
    recalibrate,
    track,
)
from unitnorm_jax.linen import UnitizedBatchNorm


def train_mode(model, variables, x):
    key = {"dropout": jax.random.key(0)}
    return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs=key)


def moments_at(model, variables, x, name):
    """What the layer is given at inference."""
    seen = {}

    def note(next_fun, args, kwargs, context):
        if context.module.name == name and context.method_name == "__call__":
            seen["x"] = args[0]
        return next_fun(*args, **kwargs)

    def run(variables, x):
        with nn.intercept_methods(note):
            model.apply(variables, x)
        return seen["x"]

    given = np.asarray(jax.jit(run)(variables, x))
    return given.mean((0, 1, 2)), given.var((0, 1, 2))


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True, name="norm")(nn.Dense(3)(x))


JITTED = nn.jit(Block)


def test_layers_that_were_jitted_before():
    """Flax's jit keeps programs, in which no interceptor looks at the layers."""

    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Block(name="plain")(JITTED(name="jitted")(x))

    x = BATCHES[0].reshape(-1, 2)
    variables = Two().init(jax.random.key(0), x)
    Two().apply(variables, x, mutable=["batch_stats"])
    collected = collect_statistics(Two(), variables, x)
    assert all("number_of_values" in collected[name]["norm"] for name in ("jitted", "plain"))


@pytest.mark.parametrize("norm", ["ubn", "estimated"])
def test_one_batch_is_calibrated_exactly(norm):
    """Every layer then sees, at inference on that batch, values of its own running statistics."""
    model, variables, collect = setup(norm)
    x = BATCHES[0]
    new = recalibrate(variables, [collect(variables, x)])
    assert jax.tree.structure(new) == jax.tree.structure(variables)
    for name in ("norm_0", "norm_1"):
        mean, var = moments_at(model, new, x, name)
        assert_close(new["batch_stats"][name]["mean"], mean, 1e-5)
        assert_close(new["batch_stats"][name]["var"], var, 1e-5)
        off, _ = moments_at(model, variables, x, name)
        assert np.abs(off - variables["batch_stats"][name]["mean"]).max() > 0.1
    jax.tree.map(np.testing.assert_array_equal, new["params"], variables["params"])


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["bn"])
def test_rate_1_is_normalization_by_the_batch(norm):
    """As in training, but that dropout and other parts stay in inference."""
    model, variables, _ = setup(norm)
    x = BATCHES[0]
    with nn.intercept_methods(without_dropout):
        expected, _ = train_mode(model, variables, x)
    y, updated = track(model, variables, x, rate=1)
    assert_close(y, expected, 1e-5)
    new = recalibrate(variables, [collect_statistics(model, variables, x)])
    jax.tree.map(partial(assert_close, tol=1e-6), updated, new)
    assert_close(model.apply(new, x), y, 1e-6)


def without_dropout(next_fun, args, kwargs, context):
    return args[0] if isinstance(context.module, nn.Dropout) else next_fun(*args, **kwargs)


def test_first_layer_of_several_batches_is_that_of_all_images():
    """Batches of sizes 16, 5 and 1, in any order: pooled by counts."""
    model, variables, collect = setup()
    parts = [BATCHES[0], BATCHES[1, :5], BATCHES[2, :1]]
    collected = [collect(variables, x) for x in parts]
    new = recalibrate(variables, collected)
    mean, var = moments_at(model, variables, jnp.concatenate(parts), "norm_0")
    assert_close(new["batch_stats"]["norm_0"]["mean"], mean, 1e-5)
    assert_close(new["batch_stats"]["norm_0"]["var"], var, 1e-5)
    again = recalibrate(variables, iter(collected[::-1]))
    jax.tree.map(partial(assert_close, tol=1e-6), again, new)
    np.testing.assert_array_equal(collected[1]["norm_0"]["number_of_values"], 5 * 36)


def test_tracking_converges_to_the_calibrated_statistics_and_keeps_to_its_rate():
    model, variables, collect = setup()
    x = BATCHES[0]
    _, once = track(model, variables, x, rate=0.25)
    mean, _ = moments_at(model, variables, x, "norm_0")
    assert_close(once["batch_stats"]["norm_0"]["mean"], 0.25 * mean, 1e-5)
    _, none = track(model, variables, x, rate=0)
    jax.tree.map(np.testing.assert_array_equal, none["batch_stats"], variables["batch_stats"])
    tracking = jax.jit(partial(chex.assert_max_traces(track, n=1), model))
    now = variables
    for _ in range(60):
        y, now = tracking(now, x, rate=0.25)
    new = recalibrate(variables, [collect(variables, x)])
    jax.tree.map(partial(assert_close, tol=1e-4), now["batch_stats"], new["batch_stats"])
    # The updated statistics normalize the batch that updated them, layer after layer.
    assert_close(y, model.apply(now, x), 1e-5)


def test_drift_of_whole_layers_is_undone():
    """A layer that only shrinks keeps its function under its own statistics, but for epsilon."""
    model = Net()
    variables = jax.jit(model.init)(jax.random.key(1), BATCHES[0])
    biases = jax.tree_util.tree_map_with_path(
        lambda path, w: 0 * w if path[-1].key == "bias" else w, variables["params"]
    )
    collect = jax.jit(partial(collect_statistics, model))
    ys = []
    for time in (1.0, 1e4):
        only_convolutions = lambda path: path[0].startswith("conv") and path[-1] == "kernel"  # noqa: E731
        noise = drift_noise(time, exponent=0.05, select=only_convolutions)
        aged = {**variables, "params": noise(jax.random.key(0), biases)}
        ys.append(model.apply(recalibrate(aged, [collect(aged, BATCHES[0])]), BATCHES[1]))
        stale = model.apply(aged, BATCHES[1])
    assert_close(ys[1], ys[0], 1e-4)
    assert np.abs(stale - ys[0]).max() > 0.1 * np.abs(ys[0]).max()


def test_devices_share_their_batch():
    """With `axis_name` eight shards are one batch, for both."""
    model, x = Net("ubn", axis_name="d"), BATCHES[0]
    _, variables, _ = setup("ubn")
    whole = Net("ubn")
    expected = track(whole, variables, x, rate=0.3)
    collected = collect_statistics(whole, variables, x)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    P = jax.sharding.PartitionSpec
    run = jax.shard_map(
        lambda v, x: (*track(model, v, x, rate=0.3), collect_statistics(model, v, x)),
        mesh=mesh,
        in_specs=(P(), P("d")),
        out_specs=(P("d"), P(), P()),
    )
    actual = jax.jit(run)(variables, x)
    jax.tree.map(partial(assert_close, tol=1e-5), actual, (*expected, collected))


class Twice(nn.Module):
    """One normalization, called for two inputs."""

    @nn.compact
    def __call__(self, x, mask=None):
        norm = UnitizedBatchNorm(use_running_average=True)
        return norm(x, mask=mask), norm(3 * x + 1, mask=mask)


def test_a_layer_that_is_called_twice_pools_its_calls_and_masks_count():
    x = BATCHES[0, :, 0, 0]
    mask = jnp.arange(16)[:, None] < 9
    model = Twice()
    variables = model.init(jax.random.key(0), x)
    poisoned = jnp.where(mask, x, jnp.nan)
    new = recalibrate(variables, [collect_statistics(model, variables, poisoned, mask=mask)])
    both = np.concatenate([x[:9], 3 * x[:9] + 1])
    (stats,) = new["batch_stats"].values()
    assert_close(stats["mean"], both.mean(0), 1e-6)
    assert_close(stats["var"], both.var(0), 1e-6)


@pytest.mark.slow
def test_layers_inside_a_scan():
    class Body(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            x = nn.BatchNorm(use_running_average=True)(nn.Dense(2)(x))
            return nn.relu(x), None

    scanned = nn.scan(
        Body, variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True}, length=3
    )

    class Deep(nn.Module):
        @nn.compact
        def __call__(self, x):
            return scanned()(x, None)[0]

    model, x = Deep(), BATCHES[0, :, 0, 0]
    variables = model.init(jax.random.key(0), x)
    y, tracked = track(model, variables, x, rate=1.0)
    new = recalibrate(variables, [collect_statistics(model, variables, x)])
    assert_close(model.apply(new, x), y, 1e-6)
    jax.tree.map(partial(assert_close, tol=1e-6), tracked, new)
    (stats,) = jax.tree.leaves(new["batch_stats"], is_leaf=lambda t: "mean" in t)
    assert stats["mean"].shape == (3, 2)


@pytest.mark.parametrize(
    "make", [EstimatedBatchNorm, partial(BatchChannelNorm, num_groups=2)], ids=["ebn", "bcn"]
)
def test_layers_that_count_their_updates_go_on_counting(make):
    """`count`, of the schedule, and `number_of_values`, of the batch, are in one scope."""
    x, still = BATCHES[0], {"use_running_average": True}
    module = make(rate=lambda update: 0.5 / (1 + update))

    def train(variables):
        return module.apply(variables, x, use_running_average=False, mutable=["batch_stats"])[1]

    variables = module.init(jax.random.key(0), x, use_running_average=False)
    for _ in range(2):
        variables |= train(variables)
    collected = collect_statistics(module, variables, x, **still)
    np.testing.assert_array_equal(collected["number_of_values"], np.full(2, 16 * 36))
    new = recalibrate(variables, [collected])
    values = np.asarray(x, np.float64)
    expected = {"mean": values.mean((0, 1, 2)), "var": values.var((0, 1, 2)), "count": 2}
    assert new["batch_stats"].keys() == expected.keys()
    jax.tree.map(partial(assert_close, tol=1e-6), new["batch_stats"], expected)
    _, tracked = track(module, variables, x, rate=1.0, **still)
    jax.tree.map(partial(assert_close, tol=1e-6), tracked["batch_stats"], expected)
    assert train(new)["batch_stats"]["count"] == 3


def test_kalman_layers_too():
    layer = BatchKalmanNorm(use_running_average=True, first=True, axis=1)
    x = BATCHES[0]
    variables = layer.init(jax.random.key(0), x)
    (y, _), _ = track(layer, variables, x, rate=1.0)
    assert_close(y.mean((0, 2, 3)), np.zeros(6), 1e-5, size=1)
    assert_close(y.std((0, 2, 3)), np.ones(6), 1e-4)


def test_running_statistics_must_be_asked_for():
    model, variables, _ = setup()
    for call in (partial(track, rate=0.1), collect_statistics):
        with pytest.raises(ValueError, match="Layer 'norm_0' was not asked to use its running"):
            call(model, variables, BATCHES[0], train=True)


def test_bad_arguments():
    model, variables, collect = setup()
    x = BATCHES[0]
    with pytest.raises(ValueError, match=r"`rate` \(=-0.5\) must be in \[0, 1\]"):
        track(model, variables, x, rate=-0.5)
    with pytest.raises(ValueError, match=r"`rate` \(=2\) must be in \[0, 1\]"):
        track(model, variables, x, rate=2)
    dense = nn.Dense(3)
    with pytest.raises(ValueError, match="No layer of Dense keeps a running `mean`"):
        track(dense, dense.init(jax.random.key(0), x), x, rate=0.1)
    with pytest.raises(ValueError, match="`collected` is empty"):
        recalibrate(variables, [])
    other = {"other": collect(variables, x)["norm_0"]}
    with pytest.raises(ValueError, match="statistics of a layer 'other', but `variables`"):
        recalibrate(variables, [other])
    with (
        pytest.raises(ValueError, match=r"`strength` \(=-1\) must be finite"),
        noisy_outputs(jax.random.key(0), -1),
    ):
        model.apply(variables, x)
