"""The table of layers that `laws_test.py` holds to its laws: a new layer is one row."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from unitnorm_jax.contrib.batch_channel_norm import BatchChannelNorm
from unitnorm_jax.contrib.batch_kalman_norm import BatchKalmanNorm, Moments
from unitnorm_jax.contrib.estimated_batch_norm import EstimatedBatchNorm
from unitnorm_jax.contrib.independent_component import IndependentComponent
from unitnorm_jax.contrib.norm_prop import NormPropConv, NormPropDense
from unitnorm_jax.contrib.weight_standardization import (
    WeightStandardizedConv,
)
from unitnorm_jax.linen import UnitizedBatchNorm

Tree = Any
IMAGES = (16, 3, 2, 4)  # 16 samples: two on each of the eight devices


@dataclasses.dataclass(frozen=True)
class Layer:
    """One row: ``make(**fields)`` builds the module; ``shape`` is that of its input.

    The first axis of ``shape`` must be the batch. ``statistics``: the layer keeps running
    statistics, and takes ``use_running_average``. ``collective``: it has ``axis_name`` and
    ``axis_index_groups``. ``stops_gradients``: in training its derivative is not that of its
    values, on purpose. ``half_atol``: what half precision may add beside the rounding of y; more
    where there is a product before it.
    """

    name: str
    make: Callable[..., nn.Module]
    shape: tuple[int, ...] = IMAGES
    statistics: bool = True
    collective: bool = True
    stops_gradients: bool = False
    half_atol: float = 1e-2

    @property
    def core(self) -> bool:
        """Whether it is this library's layer or Flax's, and no other paper's."""
        return self.name.startswith(("BatchNorm", "UnitizedBatchNorm"))

    def inputs(self, seed: int = 0) -> jax.Array:
        """A batch with a mean and a spread of its own in every channel."""
        keys = jax.random.split(jax.random.key(seed), 3)
        x, shift = (jax.random.normal(key, self.shape) for key in keys[:2])
        spread = jax.random.uniform(keys[2], (1, *self.shape[1:]), minval=0.5, maxval=2)
        return x * spread + shift[:1]

    def mode(self, train: bool) -> dict[str, bool]:
        """The arguments of a call in training or at inference."""
        return {"use_running_average": not train} if self.statistics else {}

    @functools.cache  # noqa: B019  rows live as long as the run
    def variables(self, seed: int = 0, **fields: Any) -> Tree:
        """Initialised, then every parameter and statistic moved off its initial value."""
        init = functools.partial(self.make(**fields).init, **self.mode(train=True))
        variables = jax.jit(init)(jax.random.key(seed), jnp.zeros(self.shape))
        leaves, tree = jax.tree_util.tree_flatten_with_path(variables)
        keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
        moved = [
            (jnp.abs(v) if path[-1].key == "var" else v)
            + jax.random.uniform(key, v.shape, v.dtype, 0.1, 0.9)
            for (path, v), key in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(tree, moved)

    def apply(self, variables: Tree, x: jax.Array, **fields: Any) -> tuple[jax.Array, Tree]:
        """One training step's output and the averages after it."""
        module = self.make(**fields)
        return module.apply(variables, x, **self.mode(train=True), mutable=["batch_stats"])

    @functools.partial(jax.jit, static_argnums=0)
    def jitted(self, variables: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
        """``apply``, compiled once for all the laws that compare with it."""
        return self.apply(variables, x)

    def infer(self, variables: Tree, x: jax.Array, **fields: Any) -> jax.Array:
        return self.make(**fields).apply(variables, x, **self.mode(train=False))


def averages(variables: Tree) -> Tree:
    """The running statistics among the variables; {} if there are none."""
    return {kind: tree for kind, tree in variables.items() if kind == "batch_stats"}


def _unitized(name: str, shape: tuple[int, ...] = IMAGES, **fields: Any) -> Layer:
    return Layer(f"UnitizedBatchNorm-{name}", functools.partial(UnitizedBatchNorm, **fields), shape)


def _weights(module: Callable[..., nn.Module], *args: Any, **fields: Any) -> Layer:
    """A layer that normalizes weights: it knows no batch, and its product is in half precision."""
    return Layer(
        module.__name__,
        functools.partial(module, *args),
        statistics=False,
        collective=False,
        half_atol=0.1,
        **fields,
    )


def _schedule(update: jax.Array) -> jax.Array:
    return 0.5 / (1 + update)


class _Kalman(nn.Module):
    """``BatchKalmanNorm`` with a constant prediction, and y alone as the output."""

    use_running_average: bool | None = None
    dtype: Any = None
    axis_name: str | None = None
    axis_index_groups: Any = None
    slice_size: int | None = None
    axis: int = -1
    first: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | None = None) -> jax.Array:
        moments = jnp.full((1, x.shape[self.axis]), 0.3), jnp.full((1, x.shape[self.axis]), 1.5)
        layer = BatchKalmanNorm(
            dtype=self.dtype,
            axis=self.axis,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            slice_size=self.slice_size,
            first=self.first,
        )
        flag = nn.merge_param("flag", self.use_running_average, use_running_average)
        return layer(x, flag, prediction=None if self.first else Moments(*moments))[0]


def _kalman(name: str, shape: tuple[int, ...] = IMAGES, **fields: Any) -> Layer:
    return Layer(f"BatchKalmanNorm-{name}", functools.partial(_Kalman, **fields), shape)


LAYERS = [
    Layer("BatchNorm", nn.BatchNorm),  # the control: laws must hold for Flax's own layer
    _unitized("reference"),
    _unitized("sample", unit="sample"),
    _unitized("rms", unit="rms"),
    _unitized("position", unit="position"),
    _unitized("kappa", unit=0.3),
    _unitized("bessel", bessel_correction=True, epsilon=1e-3),
    _unitized("bare", use_scale=False, use_bias=False),
    _unitized("dense", shape=(16, 5)),
    _unitized("axis1", shape=(16, 4, 3, 2), axis=1),
    Layer("BatchChannelNorm", functools.partial(BatchChannelNorm, num_groups=2)),
    Layer(
        "BatchChannelNorm-rate",
        functools.partial(BatchChannelNorm, num_groups=2, rate=_schedule),
        stops_gradients=True,
    ),
    Layer(
        "EstimatedBatchNorm",
        functools.partial(EstimatedBatchNorm, rate=0.3),
        shape=(16, 5),
        stops_gradients=True,
    ),
    # Masks differ between shards and scopes: dropout has laws of its own, beside its module.
    Layer("IndependentComponent", functools.partial(IndependentComponent, deterministic=True)),
    _weights(WeightStandardizedConv, 4, (3, 3)),
    _weights(NormPropConv, 4, (3, 3)),
    _weights(NormPropDense, 5, shape=(16, 5)),
    _kalman("first", first=True, slice_size=2),
    _kalman("slices", slice_size=2),
]


def parametrize(layers: Iterable[Layer]) -> pytest.MarkDecorator:
    """A test of each layer; those of contrib are among the slow ones."""
    rows = [pytest.param(row, marks=[] if row.core else [pytest.mark.slow]) for row in layers]
    return pytest.mark.parametrize("layer", rows, ids=lambda layer: layer.name)
