"""What becomes of alpha in training, and a loss term that pulls it: see ``NormConfig.alpha``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.config.methods import NormConfig
from unitnorm_jax import ics


def alpha_rule(config: NormConfig, updates: int | None) -> Callable[[Any], Any] | None:
    """Return what sets alpha after each update of the optimizer; None leaves it to that.

    Args:
        config: Options.
        updates: Number of updates of the job; None outside of training.
    """
    if config.alpha == "trained":
        return None
    start = config.alpha_init
    if config.alpha == "fixed":
        rule = partial(_fixed, start)
    elif config.alpha == "floor":
        rule = partial(_at_least, config.alpha_floor)
    else:
        rule = partial(_rise, start, config.alpha_ramp, updates)
    return partial(_set_alpha, rule)


def _fixed(start: float, alpha: jax.Array, step: Any) -> jax.Array:
    del step
    return jnp.full_like(alpha, start)


def _at_least(floor: float, alpha: jax.Array, step: Any) -> jax.Array:
    del step
    return jnp.maximum(alpha, floor)


def _rise(start: float, ramp: float, updates: int | None, alpha: jax.Array, step: Any) -> jax.Array:
    if updates is None:
        raise ValueError("`alpha` (='ramp') needs the number of updates: it is for training.")
    share = jnp.minimum(step / max(1, round(ramp * updates)), 1.0)
    return jnp.full_like(alpha, start + share * (1.0 - start))


def _set_alpha(rule: Callable[[jax.Array, Any], jax.Array], state: Any) -> Any:
    def new(path: Any, leaf: jax.Array) -> jax.Array:
        return rule(leaf, state.step) if path[-1].key == "alpha" else leaf

    return state.replace(params=jax.tree_util.tree_map_with_path(new, state.params))


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
