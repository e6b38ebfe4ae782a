"""Squared norms and what is made of them: finite numbers, NaN where the formula has it."""

import jax
import jax.numpy as jnp
from jax import lax


def inverse_norm(
    squared_norm: jax.Array, epsilon: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """``1 / sqrt(s + epsilon)``, and where s is NaN or overflowed; there the inverse is that of 1.

    The result of such a sample is NaN where alpha is not 0 (`poisoned`). Where alpha is 0 the norm
    does not matter, and must not: 0 NaN is NaN.
    """
    bad = ~jnp.isfinite(squared_norm)
    return lax.rsqrt(jnp.where(bad, 1, squared_norm) + epsilon), bad


@jax.custom_jvp
def poisoned(y: jax.Array, bad: jax.Array) -> jax.Array:
    """y, but NaN where bad; the derivative is that of y, so that it costs the backward nothing."""
    return jnp.where(bad, jnp.nan, y)


@poisoned.defjvp
def _poisoned_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return poisoned(*primals), tangents[0]
