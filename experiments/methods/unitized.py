"""Unitized batch normalization."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from experiments.config.methods import NormConfig
from experiments.methods.alpha import alpha_rule, bound_penalty
from experiments.methods.method import Context, Method
from unitnorm_jax import ics
from unitnorm_jax.linen import UnitizedBatchNorm


def ubn(config: NormConfig, context: Context) -> Method:
    """``unitnorm_jax.linen.UnitizedBatchNorm``."""
    norm = partial(
        UnitizedBatchNorm,
        momentum=config.momentum,
        epsilon=config.epsilon,
        unit=config.unit,
        alpha_init=nn.initializers.constant(config.alpha_init),
        bessel_correction=config.bessel_correction,
        **context.axes,
    )
    return Method(
        norm=norm,
        after_update=alpha_rule(config, context.updates),
        penalty=partial(bound_penalty, config) if config.bound_penalty else None,
        bound=partial(shift_bound, config.unit),
    )


def shift_bound(
    unit: str | float, before: Mapping[str, Any], after: Mapping[str, Any], d: int
) -> jax.Array | None:
    """``unitnorm_jax.ics.unitized_upper_bound`` of a layer's parameters; None without an alpha."""
    if "alpha" not in before:
        return None
    channels = before["alpha"].size
    return ics.unitized_upper_bound(
        *(before[name] for name in ("alpha", "scale", "bias")),
        channels=channels,
        positions=d // channels,
        unit=unit,
        **{f"{name}_after": after[name] for name in ("alpha", "scale", "bias")},
    )
