"""Normalization propagation in a residual network."""

from functools import partial

import flax.linen as nn

from experiments.config.methods import NormConfig
from experiments.methods.method import Context, Method, NoNorm
from experiments.models.preact_resnet import PreActResNet
from unitnorm_jax.contrib.norm_prop import (
    NormPropConv,
    norm_prop_activation,
    norm_prop_gain,
    norm_prop_sum,
)


def norm_prop(config: NormConfig, context: Context) -> Method:
    """No normalization layers: unit filters, and constants in the activation.

    The network is pre-activated, so activation and convolution of a layer change places: the
    convolutions are linear, and their scale starts at 1 / 1.21 for the activation that every one
    but a shortcut's has on its way. Derived here, for the paper has no residual networks: shortcut
    and branch, each of unit variance and uncorrelated, add to ``(x + y) / sqrt(2)``; shortcuts
    start at scale 1. The classifier is not normalized.
    """
    del config
    linear = partial(
        NormPropConv,
        activation=None,
        kernel_init=nn.initializers.he_normal(),
        dtype=context.dtype,
    )
    return Method(
        norm=NoNorm,
        conv=partial(linear, scale_init=nn.initializers.constant(1 / norm_prop_gain("relu"))),
        network=partial(
            PreActResNet, shortcut_conv=linear, act=norm_prop_activation, add=norm_prop_sum
        ),
    )
