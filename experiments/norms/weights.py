"""Normalized weights: what may stand behind the "+" of a method's name."""

from functools import partial
from typing import Any

import flax.linen as nn

from experiments.models.preact_resnet import Conv, Dense, ModuleDef
from experiments.norms.method import Context, Method, NormConfig
from unitnorm_jax.linen import WeightStandardizedConv


def ws(config: NormConfig, context: Context) -> Method:
    """Weight standardization of every convolution; the classifier stays, as published."""
    del config, context
    return Method(conv=partial(WeightStandardizedConv, kernel_init=nn.initializers.he_normal()))


def wn(config: NormConfig, context: Context) -> Method:
    """``flax.linen.WeightNorm`` of every convolution and of the classifier.

    Its scales start at sqrt(2), which is the norm that He's filters have on average: Flax's default
    of 1 would start another network.
    """
    del config, context
    return Method(conv=partial(_weight_norm, Conv), dense=partial(_weight_norm, Dense))


def _weight_norm(layer: ModuleDef, *args: Any, name: str, **fields: Any) -> nn.WeightNorm:
    """The wrapped layer keeps its name, and so its initial weights."""
    return nn.WeightNorm(
        layer(*args, name=name, **fields),
        scale_init=nn.initializers.constant(2**0.5),
        name=f"{name}_weight_norm",
    )
