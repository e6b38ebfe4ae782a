"""What becomes of alpha in training, and a loss term that pulls it: see ``NormConfig.alpha``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.norms.method import NormConfig
from unitnorm_jax import ics


def alpha_rule(config: NormConfig, updates: int | None) -> Callable[[Any], Any] | None:
    """Returns what sets alpha after each update of the optimizer; None leaves it to that.

    Args:
        config: Options.
        updates: Number of updates of the job; None outside of training.
    """
    kind, start = config.alpha, config.alpha_init
    floor, ramp = config.alpha_floor, config.alpha_ramp

    def fixed(alpha: jax.Array, step: Any) -> jax.Array:
        return jnp.full_like(alpha, start)

    def at_least(alpha: jax.Array, step: Any) -> jax.Array:
        return jnp.maximum(alpha, floor)

    def rise(alpha: jax.Array, step: Any) -> jax.Array:
        if updates is None:
            raise ValueError("`alpha` (='ramp') needs the number of updates: it is for training.")
        share = jnp.minimum(step / max(1, round(ramp * updates)), 1.0)
        return jnp.full_like(alpha, start + share * (1.0 - start))

    rules = {"trained": None, "fixed": fixed, "floor": at_least, "ramp": rise}
    rule = rules[kind]
    return partial(_set_alpha, rule) if rule else None


def _set_alpha(rule: Callable[[jax.Array, Any], jax.Array], state: Any) -> Any:
    def new(path: Any, leaf: jax.Array) -> jax.Array:
        return rule(leaf, state.step) if path[-1].key == "alpha" else leaf

    return state.replace(params=jax.tree_util.tree_map_with_path(new, state.params))


def bound_penalty(config: NormConfig, model: nn.Module, images: Any) -> Callable[[Any], jax.Array]:
    """Returns ``config.bound_penalty * unitized_bound_penalty``, a function of the parameters.

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
