"""What becomes of alpha in training, and a loss term that pulls it: see ``NormConfig.alpha``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.config.methods import NormConfig
from unitnorm_jax import ics, optim


def alpha_rule(config: NormConfig, updates: int | None) -> Callable[[Any], Any] | None:
    """Return what sets alpha after each update of the optimizer; None leaves it to that.

    Args:
        config: Options.
        updates: Number of updates of the job; None outside of training.
    """
    if config.alpha == "trained":
        return None
    start, floor = config.alpha_init, config.alpha_floor
    if config.alpha == "fixed":
        return partial(optim.set_alpha, value=start)
    if config.alpha == "floor":
        return partial(optim.set_alpha, value=lambda alpha: jnp.maximum(alpha, floor))
    return partial(_rise, start, config.alpha_ramp, updates)


def _rise(start: float, ramp: float, updates: int | None, state: Any) -> Any:
    if updates is None:
        raise ValueError("`alpha` (='ramp') needs the number of updates: it is for training.")
    share = jnp.minimum(state.step / max(1, round(ramp * updates)), 1.0)
    return optim.set_alpha(state, start + share * (1.0 - start))


def bound_penalty(config: NormConfig, model: nn.Module, images: Any) -> Callable[[Any], jax.Array]:
    """Return ``config.bound_penalty * unitized_bound_penalty``, a function of the parameters.

    Args:
        config: Options.
        model: The network.
        images: A batch of its input; only the shape matters.
    """
    positions = ics.layer_positions(model, images, train=False)

    def penalty(params: Any) -> jax.Array:
        bound = ics.unitized_bound_penalty(params, positions, unit=config.unit)
        return config.bound_penalty * bound

    return penalty
