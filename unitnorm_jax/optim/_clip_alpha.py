"""Alpha stays in an interval."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from unitnorm_jax.optim._transformation import Transformation, stateless
from unitnorm_jax.optim._where import map_alpha


def clip_alpha(lower: float | int = 0.0, upper: float | int = 1.0) -> Transformation:
    """Return the projection of alpha onto [lower, upper], after every update.

    At alpha 0 the layer is batch normalization, and at 1 its output is divided by its norm; in
    between it mixes the two, and the bound on the shift holds. The update u of an alpha becomes
    clip(alpha + u, lower, upper) - alpha, so that the updated alpha is in the interval, without
    exception. It must be the last of a chain, where updates are what is added.

    Args:
        lower: the least alpha.
        upper: the greatest alpha.

    Returns:
        A gradient transformation without a state; its update needs the parameters.

    Raises:
        ValueError: the bounds are no interval; at an update: there are no parameters.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from unitnorm_jax import optim
        >>> tx = optax.chain(optax.sgd(1.0), optim.clip_alpha())
        >>> params = {"norm": {"alpha": jnp.array([0.25, 0.75])}}
        >>> grads = {"norm": {"alpha": jnp.array([1.0, -0.125])}}
        >>> updates, _ = tx.update(grads, tx.init(params), params)
        >>> print(optax.apply_updates(params, updates)["norm"]["alpha"])
        [0.    0.875]
    """
    if not (math.isfinite(lower) and math.isfinite(upper) and lower <= upper):
        raise ValueError(
            f"`lower` (={lower}) and `upper` (={upper}) must be finite, and `lower` the smaller."
        )

    def clip(update: jax.Array, alpha: jax.Array) -> jax.Array:
        low, high = (jnp.asarray(bound, alpha.dtype) for bound in (lower, upper))
        clipped = jnp.clip(alpha + update, low, high)
        new = jnp.asarray(clipped - alpha, update.dtype)
        # The difference is rounded, so that the sum may pass a bound: then one step less.
        below, above = alpha + new < low, alpha + new > high
        toward = jnp.where(below, jnp.inf, -jnp.inf).astype(new.dtype)
        return jnp.where(below | above, jnp.nextafter(new, toward), new)

    def update(updates: Any, params: Any) -> Any:
        if params is None:
            raise ValueError(
                "`clip_alpha` needs the parameters: call tx.update(updates, state, params)."
            )
        return map_alpha(clip, lambda update, _: update, updates, params)

    return stateless(update)
