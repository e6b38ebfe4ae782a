"""Squared norms and what is made of them: finite numbers, NaN where the formula has it."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.functional._numerics.batch_statistics import shown


@jax.custom_jvp
def inverse_norm(squared_norm: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """``1 / sqrt(s + epsilon)``; NaN where s is, or overflowed: there it has no derivative."""
    return lax.rsqrt(shown(squared_norm) + epsilon)


@inverse_norm.defjvp
def _inverse_norm_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    inverse = inverse_norm(*primals)
    slope = jnp.where(jnp.isnan(inverse), 0, -0.5 * inverse * jnp.square(inverse))
    return inverse, slope * (tangents[0] + tangents[1])


def known(inverse: jax.Array) -> jax.Array:
    """Return an inverse norm in a derivative: 1 where it is NaN."""
    return jnp.where(jnp.isnan(inverse), 1, inverse)


@jax.custom_jvp
def mixed(factor: jax.Array, inverse: jax.Array, off: jax.Array) -> jax.Array:
    """``factor (inverse - 1)``; 0 where ``off``, that is where alpha is 0, whatever the norm.

    There the layer is batch normalization, and a NaN in another channel must not matter. (As a
    product it would; the derivative with respect to the factor is that of the product.)
    """
    return jnp.where(off, 0, factor * (inverse - 1))


@mixed.defjvp
def _mixed_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    factor, inverse, off = primals
    dfactor, dinverse, _ = tangents
    tangent = dfactor * (known(inverse) - 1) + factor * dinverse
    return mixed(factor, inverse, off), tangent


def squared_norms(squares: jax.Array, number: jax.Array | float, unit: str | float) -> jax.Array:
    """``sum_c weight squares``, (n, c) -> (n,).

    With a mask, numbers of positions are arrays: a channel that has none in a sample counts
    nothing, whatever its variance, and a sample of nothing has the norm 1.

    Args:
        squares: sums over positions of xhat^2, (n, c).
        number: positions behind each square, one number or (n, c).
        unit: as ``unitized_batch_norm``.
    """
    terms = squares * unit_weight(unit, number, squares.shape[1])
    masked = jnp.ndim(number) == 2
    norms = (jnp.where(number > 0, terms, 0) if masked else terms).sum(1)
    norms = jnp.where(norms <= 0, 0, norms)  # clips roundoff; a NaN stays one
    return jnp.where(jnp.any(number > 0, axis=1), norms, 1) if masked else norms


def unit_weight(unit: str | float, number: jax.Array | float, channels: int) -> Any:
    """Return what multiplies a channel's sum of squares over positions in the squared norm."""
    # A channel without positions has a sum of squares of 0: any weight will do.
    some = max(number, 1.0) if isinstance(number, float) else jnp.maximum(number, 1)
    if unit == "reference":
        return 1 / (some * some)
    if unit == "rms":
        return 1 / (some * channels)
    if isinstance(unit, float):
        return unit / some
    return 1.0
