"""Batch-channel normalization, with batch statistics and with estimated ones."""

from functools import partial
from typing import Any

from experiments.config.methods import NormConfig
from experiments.methods.method import Context, Method
from unitnorm_jax.contrib.batch_channel_norm import BatchChannelNorm


def bcn(config: NormConfig, context: Context) -> Method:
    """``contrib.batch_channel_norm.BatchChannelNorm``."""
    norm = partial(
        _batch_channel_norm,
        num_groups=config.num_groups,
        momentum=config.momentum,
        epsilon=config.epsilon,
        **context.axes,
    )
    return Method(norm=norm)


def bcn_micro(config: NormConfig, context: Context) -> Method:
    """Return the same with running estimates, which move by the learning rate or a constant."""
    rate: Any = config.rate
    if rate == "learning-rate":
        if context.schedule is None:
            raise ValueError(
                "`rate` (='learning-rate') needs a learning rate, and there is none outside of "
                "training; give a number in [0, 1]."
            )
        rate = context.schedule
    norm = partial(
        _batch_channel_norm,
        num_groups=config.num_groups,
        rate=rate,
        epsilon=config.epsilon,
        **context.axes,
    )
    return Method(norm=norm)


def _batch_channel_norm(**fields: Any) -> BatchChannelNorm:
    """Return the layer; a branch that is to start at 0 starts with a group-wise scale of 0.

    (Published code: a first half of zeros would leave the second nothing to normalize.)
    """
    if "scale_init" in fields:
        fields["group_scale_init"] = fields.pop("scale_init")
    return BatchChannelNorm(**fields)
