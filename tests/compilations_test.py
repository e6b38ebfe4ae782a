"""Every public function and layer, called again, compiles nothing: eagerly and under `jit`."""

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compilations import count_compilations
from tests.layers import LAYERS, parametrize
from unitnorm_jax import contrib, linen
from unitnorm_jax import functional as F
from unitnorm_jax.contrib.batch_channel_norm import (
    batch_channel_norm,
    channel_activity,
    dead_channels,
    mean_to_std,
)
from unitnorm_jax.contrib.batch_kalman_norm import (
    Moments,
    add_moments,
    batch_kalman_norm,
    kalman_update,
    layer_moments,
    linear_moments,
    normalized_moments,
    relu_moments,
    sampled_moments,
)
from unitnorm_jax.contrib.enorm import (
    enorm_chain,
    enorm_energy,
    enorm_factors,
    enorm_rescale,
    enorm_sweep,
)
from unitnorm_jax.contrib.estimated_batch_norm import estimated_batch_norm
from unitnorm_jax.contrib.implied_penalty import implied_penalty
from unitnorm_jax.contrib.noise_aware_batch_norm import (
    additive_noise,
    batch_statistics,
    chain_noise,
    collect_statistics,
    drift_noise,
    multiplicative_noise,
    noisy_outputs,
    output_noise,
    pool_statistics,
    quantization_noise,
    recalibrate,
    track,
    track_statistics,
)
from unitnorm_jax.contrib.norm_prop import (
    covariance_bound,
    dataset_stats,
    max_pool_moments,
    norm_prop_activation,
    norm_prop_avg_pool,
    norm_prop_gain,
    norm_prop_kernel,
    norm_prop_max_pool,
    norm_prop_sum,
    normalize_dataset,
)
from unitnorm_jax.contrib.weight_standardization import weight_standardization

SLOW = [pytest.mark.slow]
Call = Callable[[jax.Array], Any]
RNG = np.random.default_rng(0)
X = RNG.normal(1.0, 1.0, (4, 3, 2, 6)).astype(np.float32)
C = jnp.arange(1.0, 7.0)
STATS = F.BatchStats(mean=0.1 * C, var=C)
MOMENTS = Moments(mean=0.1 * C[None], var=C[None])
KEY = jax.random.key(0)
MASK = jnp.asarray(RNG.random((4, 3, 2, 1)) < 0.7)


def kernels(x: jax.Array) -> dict[str, Any]:
    """Parameters of two layers."""
    return {
        "hidden": {"kernel": x.reshape(-1, 8), "bias": jnp.ones(8)},
        "output": {"kernel": x.reshape(8, -1)},
    }


CHAIN = enorm_chain(("hidden", "output"))


def enorm_rescaled(x: jax.Array) -> Any:
    params = kernels(x)
    return enorm_rescale(params, enorm_factors(params, CHAIN, c=1.5, p=1).params, -1)


def noise(make: Callable[..., Any], *args: Any, **options: Any) -> Call:
    return lambda x: make(*args, **options)(KEY, kernels(x))


FUNCTIONS: dict[str, Call] = {
    "add_moments": lambda x: add_moments(MOMENTS, Moments(x[:1, 0, 0], x[:1, 0, 1])),
    "additive_noise": noise(additive_noise, 0.1),
    "batch_channel_norm": lambda x: batch_channel_norm(
        x, STATS, C, C, use_running_average=False, num_groups=2
    ),
    "batch_channel_norm-mask": lambda x: batch_channel_norm(
        x, STATS, use_running_average=False, num_groups=2, mask=MASK
    ),
    "batch_channel_norm-two passes": lambda x: batch_channel_norm(
        x, STATS, use_running_average=False, num_groups=2, use_fast_variance=False
    ),
    "batch_channel_norm-rate": lambda x: batch_channel_norm(
        x, STATS, use_running_average=False, num_groups=2, rate=0.1
    ),
    "batch_kalman_norm": lambda x: batch_kalman_norm(
        x, STATS, MOMENTS, use_running_average=False, slice_size=2
    ),
    "batch_norm": lambda x: F.batch_norm(x, STATS, C, C, use_running_average=False),
    "batch_norm-axes": lambda x: F.batch_norm(
        x,
        F.BatchStats(x[0, :, 0], jnp.ones((3, 6))),
        use_running_average=False,
        axis=(1, 3),
        mask=MASK,
    ),
    "batch_statistics": lambda x: batch_statistics(x, mask=MASK),
    "chain_noise": noise(chain_noise, quantization_noise(4), additive_noise(0.1)),
    "channel_activity": lambda x: channel_activity(x, channel_activity(x)),
    "covariance_bound": lambda x: covariance_bound(x),
    "dataset_stats": lambda x: dataset_stats(x),
    "dataset_stats-zca": lambda x: dataset_stats(x, whitening="zca"),
    "dead_channels": lambda x: dead_channels(channel_activity(x)),
    "drift_noise": noise(drift_noise, 10.0, spread=0.1),
    "enorm_chain": lambda x: enorm_chain(("a", "b")) and x,
    "enorm_energy": lambda x: enorm_energy(kernels(x), CHAIN, c=1.5),
    "enorm_factors": lambda x: enorm_factors(kernels(x), CHAIN, bias="count"),
    "enorm_rescale": enorm_rescaled,
    "enorm_sweep": lambda x: enorm_sweep([x.reshape(-1, 8), x.reshape(8, -1)]),
    "estimated_batch_norm": lambda x: estimated_batch_norm(
        x, STATS, use_running_average=False, rate=0.1, mask=MASK
    ),
    "fold_batch_norm": lambda x: F.fold_batch_norm(x, *STATS, C, C, kernel_bias=C),
    "implied_penalty": lambda x: implied_penalty(x, x, C),
    "kalman_update": lambda x: kalman_update(MOMENTS, Moments(x[:1, 0, 0], C[None])),
    "linear_moments": lambda x: linear_moments(
        MOMENTS, x.reshape(2, 2, 6, 6), spatial_shape=(5, 4)
    ),
    "max_pool_moments": lambda x: x * max_pool_moments(4)[0],
    "mean_to_std": lambda x: mean_to_std(channel_activity(x)),
    "multiplicative_noise": noise(multiplicative_noise, 0.1),
    "norm_prop_activation": lambda x: norm_prop_activation(x),
    "norm_prop_gain": lambda x: x * norm_prop_gain("sigmoid"),
    "norm_prop_kernel": lambda x: norm_prop_kernel(x, C),
    "norm_prop_sum": lambda x: norm_prop_sum(x, x),
    "normalize_dataset": lambda x: normalize_dataset(x, dataset_stats(x)),
    "normalized_moments": lambda x: normalized_moments(MOMENTS, x[0, 0, 0], x[0, 0, 1]),
    "output_noise": lambda x: output_noise(KEY, x, 0.1),
    "pool_statistics": lambda x: pool_statistics([STATS, STATS], [x[0, 0, 0] ** 2, C]),
    "quantization_noise": noise(quantization_noise, 4),
    "relu_moments": lambda x: relu_moments(Moments(x, x**2)),
    "sampled_moments": lambda x: sampled_moments(
        MOMENTS, x.reshape(1, -1, 2, 6), lambda s: nn.relu(s) @ jnp.ones((6, 2))
    ),
    "track_statistics": lambda x: track_statistics(STATS, F.BatchStats(x[0, 0, 0], C), 0.1),
    "unitized_batch_norm": lambda x: F.unitized_batch_norm(
        x, STATS, 0.1 * C, C, C, use_running_average=False
    ),
    "weight_standardization": lambda x: weight_standardization(x),
    "weight_standardization-std": lambda x: weight_standardization(x, epsilon_added_to="std"),
}
each_function = pytest.mark.parametrize(  # the core's, and the others among the slow tests
    "call",
    [
        pytest.param(call, id=name, marks=[] if hasattr(F, name.partition("-")[0]) else SLOW)
        for name, call in FUNCTIONS.items()
    ],
)


def compiled_again(call: Callable[..., Any], *args: Any) -> list[str]:
    """What the second and the third call compile, on inputs that the first has not seen."""
    x = args[-1]
    others = jax.block_until_ready([0.5 * x, 2.0 * x])
    jax.block_until_ready(call(*args))
    with count_compilations() as compiled:
        for other in others:
            jax.block_until_ready(call(*args[:-1], other))
    return compiled


def scalar(call: Call) -> Callable[[jax.Array], jax.Array]:
    """The sum of all floating results: something to differentiate."""

    def total(x: jax.Array) -> jax.Array:
        leaves = [leaf for leaf in jax.tree.leaves(call(x)) if isinstance(leaf, jax.Array)]
        return sum((leaf.sum() for leaf in leaves if leaf.dtype == x.dtype), jnp.zeros(()))

    return total


@each_function
def test_a_function_compiles_nothing_again(call):
    assert not compiled_again(call, jnp.asarray(X))


@each_function
def test_a_gradient_compiles_nothing_again(call):
    assert not compiled_again(jax.grad(scalar(call)), jnp.asarray(X))


def test_a_jitted_function_is_traced_once():
    """All in one program: each alone would compile as much again."""

    @jax.jit
    @chex.assert_max_traces(n=1)
    def everything(x):
        return [scalar(call)(x) for call in FUNCTIONS.values()]

    assert not compiled_again(everything, jnp.asarray(X))


def public(module: types.ModuleType) -> set[str]:
    """The public functions and classes of a package, types of results aside."""
    return {
        name
        for name, value in vars(module).items()
        if isinstance(value, types.FunctionType | type)
        and not name.startswith(("_", "check_"))
        and not hasattr(value, "_fields")
    }


@parametrize(LAYERS)
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_a_layer_compiles_nothing_again(layer, mode):
    call = layer.apply if mode == "train" else layer.infer
    assert not compiled_again(call, layer.variables(), layer.inputs())


class Net(nn.Module):
    """A layer between two others, for what works on whole models."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = nn.Dense(6)
        y = dense(x)
        if not self.is_initializing():
            layer_moments(dense, MOMENTS)
        return nn.BatchNorm(use_running_average=True)(y)


@functools.cache
def net() -> Any:
    return jax.jit(Net().init)(KEY, X)


def noisy(x: jax.Array) -> jax.Array:
    with noisy_outputs(KEY, 0.1):
        return Net().apply(net(), x)


def recalibrated(x: jax.Array) -> Any:
    return recalibrate(net(), [collect_statistics(Net(), net(), x)] * 2)


MODELS: dict[str, Call] = {
    "add_alpha": lambda x: linen.add_alpha({**net(), "extra": x}),
    "collect_statistics": lambda x: collect_statistics(Net(), net(), x),
    "layer_moments": lambda x: Net().apply(net(), x),
    "noisy_outputs": noisy,
    "norm_prop_avg_pool": lambda x: norm_prop_avg_pool(x, (2, 2)),
    "norm_prop_max_pool": lambda x: norm_prop_max_pool(x, (2, 2)),
    "recalibrate": recalibrated,
    "track": lambda x: track(Net(), net(), x, rate=0.1),
}


@pytest.mark.parametrize("call", MODELS.values(), ids=MODELS)
def test_what_works_on_models_compiles_nothing_again(call):
    assert not compiled_again(call, jnp.asarray(X))


def test_the_tables_have_every_public_name():
    methods = [m for name, m in sys.modules.items() if name.rpartition(".")[0] == contrib.__name__]
    names = set().union(*(public(module) for module in (F, linen, *methods)))
    rows = [*FUNCTIONS, *MODELS, *(layer.name for layer in LAYERS), "elimination_singularities"]
    # No layers of their own, and the same layer by another name.
    conversion = {"BatchNorm", "unitize", "unitized_layers", "drop_alpha"}
    assert names - conversion == {name.partition("-")[0] for name in rows} - conversion
