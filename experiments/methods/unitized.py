"""Unitized batch normalization, and the authors' own configuration of it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from experiments.methods.alpha import alpha_rule, bound_penalty
from experiments.methods.method import Context, Method, NormConfig
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


def paper_norms(
    image_size: int, stages: int = 3, scale_coe: float = 1.0
) -> tuple[partial[UnitizedBatchNorm], ...]:
    """Return the authors' unitization layers, one for each stage of a ``PreActResNet``.

    Their layers differ from the default in three ways, all observed by running their code: the
    variance is corrected, epsilon and momentum are Keras's, and the number of positions is fixed
    when the network is built, whatever the size of the images it is given later.

    Args:
        image_size: Height or width of the (square) images, pixels; 32 for CIFAR.
        stages: Number of stages; each but the first halves the image.
        scale_coe: Further factor of the number of positions.

    Returns:
        One layer factory per stage, for ``PreActResNet(norm=...)``.
    """
    positions = [(-(-image_size // 2**stage)) ** 2 for stage in range(stages)]
    return tuple(
        partial(
            UnitizedBatchNorm,
            momentum=0.99,
            epsilon=1e-3,
            unit=1.0 / (p * scale_coe),
            bessel_correction=True,
        )
        for p in positions
    )
