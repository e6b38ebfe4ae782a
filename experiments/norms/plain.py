"""The layers that Flax has, and none."""

from functools import partial
from typing import Any

import flax.linen as nn

from experiments.norms.method import Context, Method, NoNorm, NormConfig


def group_norm(
    *, use_running_average: bool | None = None, group_size: int = 8, **fields: Any
) -> nn.GroupNorm:
    """Returns ``flax.linen.GroupNorm``; it has no running average, so the flag is dropped."""
    del use_running_average
    return nn.GroupNorm(num_groups=None, group_size=group_size, **fields)


def bn(config: NormConfig, context: Context) -> Method:
    """``flax.linen.BatchNorm``."""
    norm = partial(
        nn.BatchNorm,
        momentum=config.momentum,
        epsilon=config.epsilon,
        axis_name=context.axis_name,
    )
    return Method(norm=norm)


def gn(config: NormConfig, context: Context) -> Method:
    """``flax.linen.GroupNorm``, 8 channels to a group."""
    del context
    return Method(norm=partial(group_norm, epsilon=config.epsilon))


def none(config: NormConfig, context: Context) -> Method:
    """No normalization."""
    del config, context
    return Method(norm=NoNorm)
