"""What the contrib layers take and refuse: integers, symbolic dimensions, arguments of no use."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from tests.oracle import assert_close
from unitnorm_jax import functional as F
from unitnorm_jax.contrib.batch_channel_norm import BatchChannelNorm, batch_channel_norm
from unitnorm_jax.contrib.batch_kalman_norm import (
    BatchKalmanNorm,
    Moments,
    batch_kalman_norm,
    kalman_update,
    normalized_moments,
)
from unitnorm_jax.contrib.enorm import enorm_sweep
from unitnorm_jax.contrib.estimated_batch_norm import EstimatedBatchNorm, estimated_batch_norm
from unitnorm_jax.contrib.independent_component import IndependentComponent
from unitnorm_jax.contrib.noise_aware_batch_norm import (
    additive_noise,
    batch_statistics,
    chain_noise,
    drift_noise,
    multiplicative_noise,
    quantization_noise,
    track_statistics,
)
from unitnorm_jax.contrib.norm_prop import (
    NormPropConv,
    NormPropDense,
    covariance_bound,
    dataset_stats,
    max_pool_moments,
    normalize_dataset,
)
from unitnorm_jax.contrib.weight_standardization import (
    WeightStandardizedConv,
)

RNG = np.random.default_rng(0)
SHAPE = (8, 3, 2, 4)
X = jnp.asarray(RNG.normal(size=SHAPE).astype(np.float32))
STATS = F.BatchStats(jnp.zeros(4), jnp.ones(4))
LAYERS = {
    "BatchChannelNorm": functools.partial(BatchChannelNorm, num_groups=2),
    "BatchChannelNorm-rate": functools.partial(BatchChannelNorm, num_groups=2, rate=0.1),
    "EstimatedBatchNorm": functools.partial(EstimatedBatchNorm, rate=0.1),
    "BatchKalmanNorm": functools.partial(BatchKalmanNorm, first=True),
    "IndependentComponent": functools.partial(IndependentComponent, deterministic=True),
}
each = pytest.mark.parametrize("name", LAYERS)


def apply(layer: Any, variables: Any, x: Any, train: bool = True) -> Any:
    y, updated = layer.apply(variables, x, use_running_average=not train, mutable=["batch_stats"])
    return jax.tree.leaves(y)[0], updated


@functools.cache
def variables(name: str) -> Any:
    return LAYERS[name]().init(jax.random.key(0), X, use_running_average=True)


@pytest.mark.slow
@each
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_integers_are_converted(name, dtype):
    x = jnp.asarray(RNG.integers(0, 2 if dtype == "bool" else 100, SHAPE)).astype(dtype)
    layer = LAYERS[name]()
    for train in (True, False):
        y, updated = apply(layer, variables(name), x, train)
        expected, stats = apply(layer, variables(name), x.astype(jnp.float32), train)
        assert y.dtype == np.float32
        assert_close(y, expected, 1e-6)
        jax.tree.map(functools.partial(assert_close, tol=1e-6), updated, stats)


WEIGHTS = {
    "WeightStandardizedConv": WeightStandardizedConv(3, (3, 3)),
    "NormPropDense": NormPropDense(3),
    "NormPropConv": NormPropConv(3, (3, 3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("layer", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_layers_of_weights_convert_integers(layer, dtype):
    x = jnp.asarray(RNG.integers(0, 2, SHAPE)).astype(dtype)
    params = layer.init(jax.random.key(0), X)
    expected = layer.apply(params, x.astype(jnp.float32))
    np.testing.assert_array_equal(layer.apply(params, x), expected)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
def test_statistics_of_integers(dtype):
    x = RNG.integers(0, 2 if dtype == "bool" else 100, SHAPE).astype(dtype)
    stats, count = batch_statistics(jnp.asarray(x))
    assert_close(stats.mean, x.mean((0, 1, 2)), 1e-6)
    assert_close(stats.var, x.astype(float).var((0, 1, 2)), 1e-6)
    np.testing.assert_array_equal(count, 48)


def exported(f: Any, *args: Any) -> Any:
    (batch,) = jax.export.symbolic_shape("b", constraints=["b >= 2"])
    *first, x = args
    shape = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    structs = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), first)
    return jax.export.export(jax.jit(f))(*structs, shape).call(*args)


@pytest.mark.slow
@each
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_export_with_a_symbolic_batch(name, train, unchecked):
    call = functools.partial(apply, LAYERS[name](), train=train)
    actual = exported(call, variables(name), X)
    jax.tree.map(
        functools.partial(assert_close, tol=1e-6), actual, jax.jit(call)(variables(name), X)
    )


@pytest.mark.parametrize("layer", WEIGHTS.values(), ids=WEIGHTS)
def test_layers_of_weights_export(layer, unchecked):
    params = layer.init(jax.random.key(0), X)
    assert_close(exported(layer.apply, params, X), jax.jit(layer.apply)(params, X), 1e-6)


@pytest.mark.parametrize("whitening", [None, "zca"])
def test_data_sets_export(whitening, unchecked):
    def normalized(x: Any) -> Any:
        return normalize_dataset(x, dataset_stats(x, whitening=whitening))

    x = X[:, :1, :1]
    assert_close(exported(normalized, x), jax.jit(normalized)(x), 1e-5)
    assert_close(exported(batch_statistics, X)[0].var, batch_statistics(X)[0].var, 1e-6)


def norm(method: Any, **options: Any) -> Any:
    return lambda: method(X, STATS, **{"use_running_average": False, **options})


kalman = functools.partial(batch_kalman_norm, prediction=None)
KEY = jax.random.key(0)
ARRAY = np.ones(3)
REFUSED = {
    "rate text": (norm(estimated_batch_norm, rate="abc"), r"`rate` \(='abc'\) must be in"),
    "rate array": (norm(estimated_batch_norm, rate=ARRAY), r"`rate` \(=array.* must be in"),
    "rate of track": (lambda: track_statistics(STATS, STATS, None), r"`rate` \(=None\) must"),
    "concrete rate": (norm(estimated_batch_norm, rate=jnp.float32(2)), r"`rate` \(=.*2"),
    "gain": (norm(kalman, gain="abc"), r"`gain` \(='abc'\) must be in \[0, 1\]"),
    "guard": (norm(kalman, guard=None), r"`guard` \(=None\) must be positive"),
    "slice_size": (norm(kalman, slice_size=2.0), r"`slice_size` \(=2.0\) must be positive"),
    "strength": (lambda: additive_noise("abc"), r"`strength` \(='abc'\) must be finite"),
    "concrete strength": (lambda: multiplicative_noise(jnp.float32(-1)), r"`strength` \(=.*-1"),
    "time": (lambda: drift_noise(None), r"`time` \(=None\) must be finite and at least 1"),
    "huge time": (lambda: drift_noise(10**400), r"`time` \(=1000"),
    "concrete time": (lambda: drift_noise(jnp.float32(0.5)), r"`time` \(=.*0.5"),
    "bits": (lambda: quantization_noise(2.5), r"`bits` \(=2.5\) must be at least 2, .* an integer"),
    "concrete bits": (lambda: quantization_noise(jnp.float32(2.5)), r"`bits` \(=.*2.5"),
    "bits text": (lambda: quantization_noise("4"), r"`bits` \(='4'\) must be at least 2"),
    "chain": (lambda: chain_noise(0.1), r"`noises\[0\]` \(=0.1\) must be a noise"),
    "num_groups": (norm(batch_channel_norm, num_groups=2.0), r"`num_groups` \(=2.0\) must di"),
    "p": (lambda: enorm_sweep([X[0], X[0]], p=None), r"`p` \(=None\) must be positive"),
    "variance": (lambda: covariance_bound(X, float("inf")), r"`variance` \(=inf\) must be"),
    "count": (lambda: max_pool_moments(True), r"`count` \(=True\) must be a positive integer"),
    "epsilon": (
        lambda: normalized_moments(Moments(X[0, 0], X[0, 0]), epsilon=-1),
        r"`epsilon` \(=-1\) must be finite",
    ),
}


@pytest.fixture
def unchecked():
    """Annotations are checked in tests alone: here, too, errors are those that users see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(("call", "match"), REFUSED.values(), ids=REFUSED)
def test_refused(call, match, unchecked):
    with pytest.raises(ValueError, match=match):
        call()


FIELDS = {
    "dtype": {"dtype": jnp.int32},
    "axis float": {"axis": 1.0},
    "axis None": {"axis": None},
    "momentum": {"momentum": "abc"},
    "epsilon": {"epsilon": None},
}


@each
@pytest.mark.parametrize("field", FIELDS)
def test_fields_of_no_use_are_refused(name, field, unchecked):
    if field == "momentum" and name in ("EstimatedBatchNorm",):
        pytest.skip("it has none")
    with pytest.raises(ValueError, match=field.split()[0]):
        LAYERS[name](**FIELDS[field]).init(KEY, X, use_running_average=False)


@pytest.mark.parametrize("name", [n for n in LAYERS if n != "BatchKalmanNorm"])
@pytest.mark.parametrize(
    "mask", ["abc", np.full((8, 3, 2, 1), 0.3, np.float32)], ids=["text", "0.3"]
)
def test_masks_that_are_none_are_refused(name, mask, unchecked):
    with pytest.raises(ValueError, match="mask"):
        LAYERS[name]().apply(
            variables(name), X, use_running_average=False, mask=mask, mutable=["batch_stats"]
        )


@each
def test_an_empty_batch_at_inference(name):
    y, _ = apply(LAYERS[name](), variables(name), X[:0], train=False)
    assert y.shape == (0, *SHAPE[1:])


@pytest.mark.parametrize("name", ["BatchChannelNorm", "BatchKalmanNorm", "IndependentComponent"])
def test_a_traced_momentum(name, unchecked):
    def step(momentum: Any) -> Any:
        return apply(LAYERS[name](momentum=momentum), variables(name), X)[1]

    actual = jax.jit(step)(0.7)
    jax.tree.map(functools.partial(assert_close, tol=1e-6), actual, step(0.7))


def test_kalmans_gain_may_be_traced():
    moments = Moments(X[:2, 0, 0], jnp.ones((2, 4)))

    def update(gain: Any) -> Any:
        return kalman_update(moments, Moments(X[2:4, 0, 0], jnp.ones((2, 4))), gain=gain)

    jax.tree.map(functools.partial(assert_close, tol=1e-6), jax.jit(update)(0.3), update(0.3))


def test_boxed_kernels_get_noise_and_keep_their_box():
    kernel = nn.with_partitioning(nn.initializers.ones, (None, "model"))
    params = nn.Dense(3, kernel_init=kernel).init(KEY, jnp.ones((1, 2)))["params"]
    noisy = additive_noise(0.1)(KEY, {**params, "kernel": params["kernel"]})
    assert isinstance(noisy["kernel"], nn.Partitioned)
    assert noisy["kernel"].names == (None, "model")
