"""Alpha stays as it is."""

from typing import Any

import jax.numpy as jnp

from unitnorm_jax.optim._transformation import Transformation, stateless
from unitnorm_jax.optim._where import map_alpha


def freeze_alpha() -> Transformation:
    """Return the transformation that makes every update of alpha zero.

    It must be the last of a chain: what comes after it, weight decay for one, would move alpha.
    Moments of alpha that come before it go on being computed.

    Returns:
        A gradient transformation without a state.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from unitnorm_jax import optim
        >>> tx = optax.chain(optax.sgd(1.0), optim.freeze_alpha())
        >>> params = {"norm": {"alpha": jnp.ones(2), "scale": jnp.ones(2)}}
        >>> updates, _ = tx.update(params, tx.init(params), params)
        >>> print(updates["norm"]["alpha"], updates["norm"]["scale"])
        [0. 0.] [-1. -1.]
    """

    def update(updates: Any, params: Any) -> Any:
        del params
        return map_alpha(jnp.zeros_like, lambda update: update, updates)

    return stateless(update)
