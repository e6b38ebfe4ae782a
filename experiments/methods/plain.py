"""The layers that Flax has, and none."""

from functools import partial
from typing import Any

import flax.linen as nn

from experiments.config.methods import NormConfig
from experiments.methods.method import Affine, Context, Method, NoNorm
from experiments.models.preact_resnet import ModuleDef

IMAGE = (1, 2, 3)  # All axes of a sample, (n, h, w, c).


def bn(config: NormConfig, context: Context) -> Method:
    """``flax.linen.BatchNorm``."""
    norm = partial(
        nn.BatchNorm,
        momentum=config.momentum,
        epsilon=config.epsilon,
        **context.axes,
    )
    return Method(norm=norm)


def gn(config: NormConfig, context: Context) -> Method:
    """``flax.linen.GroupNorm``, 8 channels to a group."""
    del context
    norm = _without_statistics(nn.GroupNorm, num_groups=None, group_size=8, epsilon=config.epsilon)
    return Method(norm=norm)


def ln(config: NormConfig, context: Context) -> Method:
    """``flax.linen.LayerNorm`` over a whole sample, as for images in Wu & He (2018)."""
    del context
    norm = _without_statistics(nn.LayerNorm, reduction_axes=IMAGE, epsilon=config.epsilon)
    return Method(norm=norm)


def instance(config: NormConfig, context: Context) -> Method:
    """``flax.linen.InstanceNorm``."""
    del context
    return Method(norm=_without_statistics(nn.InstanceNorm, epsilon=config.epsilon))


def rms(config: NormConfig, context: Context) -> Method:
    """``flax.linen.RMSNorm`` over a whole sample, so that it is ``ln`` without mean and bias."""
    del context
    norm = _without_statistics(nn.RMSNorm, reduction_axes=IMAGE, epsilon=config.epsilon)
    return Method(norm=norm)


def none(config: NormConfig, context: Context) -> Method:
    """No normalization."""
    del config, context
    return Method(norm=NoNorm)


def affine(config: NormConfig, context: Context) -> Method:
    """Scale and bias alone: the floor under the time of any normalization."""
    del config, context
    return Method(norm=Affine)


def _without_statistics(layer: ModuleDef, **fields: Any) -> ModuleDef:
    """Make layers whose statistics are of one sample, so that they have no running average.

    Nor do they cross devices: with an axis name Flax's layers would mix different samples.
    """

    def make(
        *,
        use_running_average: bool | None = None,
        axis_name: Any = None,
        axis_index_groups: Any = None,
        **own: Any,
    ) -> nn.Module:
        del use_running_average, axis_name, axis_index_groups
        return layer(**fields, **own)

    return make
