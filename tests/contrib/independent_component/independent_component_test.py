"""Batch normalization, then dropout: the composition, its laws, and its two laws of dependence."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.oracle import assert_close
from unitnorm_jax.contrib.independent_component import IndependentComponent
from unitnorm_jax.linen import UnitizedBatchNorm

OWN_FIELDS = {
    "rate": 0.05,
    "deterministic": None,
    "broadcast_dims": (),
    "rng_collection": "dropout",
}
X = 3 + 2 * jax.random.normal(jax.random.key(0), (16, 3, 2, 4))
KEY = jax.random.key(7)


def train(layer, variables, x, key=KEY, **arguments):
    return layer.apply(
        variables,
        x,
        use_running_average=False,
        mutable=["batch_stats"],
        rngs={"dropout": key},
        **arguments,
    )


def init(layer, x=X):
    variables = layer.init(jax.random.key(1), x, use_running_average=False)
    return jax.tree.map(lambda leaf: leaf + 0.3, variables)


def test_fields_begin_with_those_of_batch_norm():
    theirs, ours = (
        [f for f in dataclasses.fields(m) if f.name not in ("parent", "name")]
        for m in (nn.BatchNorm, IndependentComponent)
    )
    for a, b in zip(theirs, ours[: len(theirs)], strict=True):
        assert (b.name, b.default, b.kw_only) == (a.name, a.default, a.kw_only)
    own = {f.name: f.default for f in ours[len(theirs) :]}
    # The norm is Flax's but for its digits.
    norm = [f for f in dataclasses.fields(own.pop("norm")) if f.name not in ("parent", "name")]
    assert own == OWN_FIELDS
    for a, b in zip(theirs, norm, strict=True):
        assert (b.name, b.default, b.kw_only) == (a.name, a.default, a.kw_only)


@pytest.mark.parametrize("norm", [nn.BatchNorm, functools.partial(UnitizedBatchNorm, unit="rms")])
def test_variables_are_those_of_the_norm(norm):
    """So a checkpoint loads; and inference is the norm alone."""
    plain, layer = norm(momentum=0.8), IndependentComponent(norm=norm, momentum=0.8, rate=0.5)
    variables = init(plain)
    assert jax.tree.structure(init(layer)) == jax.tree.structure(variables)
    y = layer.apply(variables, X, use_running_average=True)
    np.testing.assert_array_equal(y, plain.apply(variables, X, use_running_average=True))
    y, averages = train(layer, variables, X)
    expected, expected_averages = train(plain, variables, X)
    jax.tree.map(np.testing.assert_array_equal, averages, expected_averages)
    # Every value is either dropped or the norm's, over the probability of being kept.
    kept = np.asarray(y) != 0
    assert 0.3 < kept.mean() < 0.7
    assert_close(y, np.where(kept, 2 * np.asarray(expected), 0), 1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"axis": 1, "epsilon": 0.5},
        {"dtype": jnp.bfloat16},
        {"use_bias": False, "scale_init": nn.initializers.constant(2)},
        {"use_scale": False, "bias_init": nn.initializers.constant(2)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_fields_reach_the_norm(options):
    layer, plain = IndependentComponent(**options), nn.BatchNorm(**options)
    variables = init(plain)
    jax.tree.map(np.testing.assert_array_equal, init(layer), variables)
    outs = [
        module.apply(variables, X, use_running_average=False, mutable=["batch_stats"], **extra)
        for module, extra in ((layer, {"deterministic": True}), (plain, {}))
    ]
    assert outs[0][0].dtype == outs[1][0].dtype
    # Its sums are in another order than Flax's.
    tol = 1e-2 if outs[0][0].dtype == jnp.bfloat16 else 1e-6
    jax.tree.map(functools.partial(assert_close, tol=tol), *outs)


def test_when_dropout_is_on():
    variables = init(IndependentComponent())

    def dropped(layer, **arguments):
        y = layer.apply(variables, X, rngs={"dropout": KEY}, mutable=["batch_stats"], **arguments)[
            0
        ]
        return bool((y == 0).any())

    layer = functools.partial(IndependentComponent, rate=0.5)
    assert dropped(layer(), use_running_average=False)
    assert not dropped(layer(), use_running_average=True)
    assert dropped(layer(), use_running_average=True, deterministic=False)
    assert not dropped(layer(deterministic=True), use_running_average=False)
    assert not dropped(layer(rate=0.0), use_running_average=False)
    with pytest.raises(ValueError, match="deterministic"):
        dropped(layer(deterministic=True), use_running_average=False, deterministic=True)
    with pytest.raises(ValueError, match="use_running_average"):
        dropped(layer())


def test_mask_and_broadcast_dims():
    layer = IndependentComponent(rate=0.5, broadcast_dims=(1, 2))
    variables = init(layer)
    mask = jnp.arange(16)[:, None, None, None] < 9
    y, averages = train(layer, variables, X.at[9:].set(jnp.nan), mask=mask)
    _, expected = train(layer, variables, X[:9])
    jax.tree.map(functools.partial(assert_close, tol=1e-6), averages, expected)
    channels = (np.asarray(y[:9]) == 0).reshape(9, 6, 4)
    assert (channels.all(1) == channels.any(1)).all()
    assert 0 < channels.mean() < 1


def test_transformations_with_dropout():
    """jit, shardings and a second call see the same masks for the same key."""
    layer = IndependentComponent(rate=0.3)
    variables, traces = init(layer), []

    @jax.jit
    def run(variables, x, key):
        traces.append(x)
        return train(layer, variables, x, key)

    y, averages = run(variables, X, KEY)
    assert_close(y, train(layer, variables, X)[0], 3e-6)
    other, _ = run({**variables, **averages}, X, jax.random.key(8))
    assert len(traces) == 1
    assert ((np.asarray(y) == 0) != (np.asarray(other) == 0)).any()

    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    spread = jax.device_put(X, NamedSharding(mesh, P("batch")))
    assert_close(run(variables, spread, KEY)[0], y, 3e-6)


def test_devices_with_keys_of_their_own():
    layer = IndependentComponent(rate=0.5, axis_name="batch")
    variables = init(IndependentComponent())

    def shard(x):
        return train(layer, variables, x, jax.random.fold_in(KEY, jax.lax.axis_index("batch")))

    y, averages = jax.pmap(shard, "batch")(X.reshape(8, 2, 3, 2, 4))
    expected, expected_averages = train(IndependentComponent(rate=0.0), variables, X)
    kept = np.asarray(y).reshape(X.shape) != 0
    assert_close(y.reshape(X.shape), np.where(kept, 2 * np.asarray(expected), 0), 1e-5)
    jax.tree.map(lambda a, b: assert_close(a[3], b, 1e-5), averages, expected_averages)
    assert len({m.tobytes() for m in kept.reshape(8, -1)}) == 8


N = 400_000
VALUES = jnp.array([-1.0, 0.3, 2.0])


@functools.cache
def dependent_units():
    """Two units of three values each (none of them 0 once normalized), neither independent."""
    joint = jnp.array([[0.25, 0.05, 0.05], [0.05, 0.2, 0.05], [0.05, 0.05, 0.25]])
    cells = jax.random.choice(jax.random.key(3), 9, (N,), p=joint.ravel())
    return jnp.stack([VALUES[cells // 3], VALUES[cells % 3]], axis=1)


@functools.cache
def dropped_units(rate):
    layer = IndependentComponent(rate=rate, epsilon=1e-12)
    variables = layer.init(jax.random.key(1), dependent_units(), use_running_average=False)
    return np.asarray(train(layer, variables, dependent_units())[0], np.float64)


def correlation(y):
    return np.corrcoef(y.T)[0, 1]


def mutual_information(y):
    """Of the empirical distribution, in nats."""
    codes = [np.unique(np.round(column, 2), return_inverse=True)[1] for column in y.T]
    joint = np.zeros((4, 4))
    np.add.at(joint, tuple(codes), 1 / len(y))
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return (joint[seen] * np.log(joint[seen] / independent[seen])).sum()


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_correlation_is_p_times_mutual_information_p_squared_times(rate):
    before, after = dropped_units(0.0), dropped_units(rate)
    p = 1 - rate
    # The error of a correlation of N samples, and that of the information, are about N^-1/2.
    error = 4 / np.sqrt(N)
    assert correlation(before) > 0.5
    assert correlation(after) == pytest.approx(p * correlation(before), abs=error)
    assert mutual_information(before) > 0.2
    expected = p**2 * mutual_information(before)
    assert mutual_information(after) == pytest.approx(expected, abs=error)
    # The powers are not to be had the other way round.
    assert abs(correlation(after) - p**2 * correlation(before)) > 10 * error
    assert abs(mutual_information(after) - p * mutual_information(before)) > 5 * error


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.4])
def test_variance_behind_the_next_weight_layer(rate):
    """1 / p times as large in training as at inference, of uncorrelated units."""
    x = jax.random.normal(jax.random.key(4), (200_000, 8))
    layer = IndependentComponent(rate=rate, momentum=0.0)
    variables = layer.init(jax.random.key(1), x, use_running_average=False)
    weights = jax.random.normal(jax.random.key(5), (8, 3))
    y, updated = train(layer, variables, x)
    inference = layer.apply({**variables, **updated}, x, use_running_average=True)
    ratio = np.var(y @ weights, axis=0) / np.var(inference @ weights, axis=0)
    np.testing.assert_allclose(ratio, 1 / (1 - rate), rtol=0.02)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_impossible_rates(rate):
    with pytest.raises(ValueError, match=r"`rate` \(=.*\) must be in \[0, 1\): it is the probab"):
        IndependentComponent(rate=rate).init(KEY, X, use_running_average=True)
