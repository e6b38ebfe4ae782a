"""Normalized weights: what may stand behind the "+" of a method's name."""

from functools import partial

import flax.linen as nn

from experiments.config.methods import NormConfig
from experiments.methods.method import Context, Method
from unitnorm_jax.contrib.norm_prop import NormPropConv, NormPropDense
from unitnorm_jax.contrib.weight_standardization import WeightStandardizedConv

HE = nn.initializers.he_normal()


def ws(config: NormConfig, context: Context) -> Method:
    """Weight standardization of every convolution; the classifier stays, as published."""
    del config, context
    return Method(conv=partial(WeightStandardizedConv, kernel_init=HE))


def wn(config: NormConfig, context: Context) -> Method:
    """Weight normalization of every convolution and of the classifier.

    Without their activation the layers of normalization propagation are weight normalization, as
    ``flax.linen.WeightNorm`` computes it; that draws other initial weights, so that runs would not
    be paired. The scales start at sqrt(2), the norm of He's filters on average: 1 would start
    another network.
    """
    del config, context
    scale = nn.initializers.constant(2**0.5)
    return Method(
        conv=partial(NormPropConv, activation=None, kernel_init=HE, scale_init=scale),
        dense=partial(NormPropDense, activation=None, kernel_init=HE, scale_init=scale),
    )
