"""Squared norms and what is made of them: finite numbers, NaN where the formula has it."""

from typing import Any

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


def squared_norms(
    squares: jax.Array, inv_std: jax.Array, number: jax.Array | float, unit: str | float
) -> jax.Array:
    """``sum_c weight squares / (var + epsilon)``, (n, c) -> (n,).

    With a mask, numbers of positions are arrays: a channel that has none in a sample counts
    nothing, whatever its variance, and a sample of nothing has the norm 1.

    Args:
      squares: sums over positions of (x - mean)^2, (n, c).
      inv_std: 1 / sqrt(var + epsilon), (c,).
      number: positions behind each square, one number or (n, c).
      unit: as ``unitized_batch_norm``.
    """
    terms = squares * unit_weight(unit, number, squares.shape[1])
    terms = (terms * inv_std[None]) * inv_std[None]  # the square alone may underflow
    masked = jnp.ndim(number) == 2
    norms = (jnp.where(number > 0, terms, 0) if masked else terms).sum(1)
    norms = jnp.where(norms <= 0, 0, norms)  # clips roundoff; a NaN stays one
    return jnp.where(jnp.any(number > 0, axis=1), norms, 1) if masked else norms


def unit_weight(unit: str | float, number: jax.Array | float, channels: int) -> Any:
    """What multiplies a channel's sum of squares over positions in the squared norm."""
    # A channel without positions has a sum of squares of 0: any weight will do.
    some = max(number, 1.0) if isinstance(number, float) else jnp.maximum(number, 1)
    if unit == "reference":
        return 1 / (some * some)
    if unit == "rms":
        return 1 / (some * channels)
    if isinstance(unit, float):
        return unit / some
    return 1.0
