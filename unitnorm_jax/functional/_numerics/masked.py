"""What stands in masked places of an input: nothing of it may reach the rest, or overflow."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def stand_in(
    x: jax.Array,
    mask: jax.Array | None,
    mean: jax.Array,
    var: jax.Array,
    epsilon: jax.Array | float,
    dtype: Any,
) -> jax.Array:
    """x; in masked places the mean, if what is there is not finite or too far from the mean.

    So the results there are bounded, and so are sums of them with the gradients that come back.

    Args:
        x: input.
        mask: True where a value takes part, of x's shape, or None.
        mean: what normalizes, broadcastable to x, as var.
        var: see mean.
        epsilon: added to the variance.
        dtype: dtype of the result: it must hold what is normalized, and divided by a norm.

    Returns:
        Of x's shape and dtype; no gradient reaches what is replaced.
    """
    if mask is None:
        return x
    deviations = min(1e4, float(jnp.finfo(dtype).max) ** 0.5 / 2)
    mean, reach = lax.stop_gradient((mean, deviations * jnp.sqrt(var + epsilon)))
    near = jnp.abs(x.astype(mean.dtype) - mean) <= reach  # False for a NaN
    return jnp.where(mask | near, x, mean.astype(x.dtype))
