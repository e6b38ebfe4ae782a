"""Weights of samples: normalized without overflow, and handed to a solver digit by digit."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from unitnorm_jax.ics.distances import _rounding, _wide


class Weights(NamedTuple):
    """Weights on their way into a compiled function."""

    raw: Any
    """As given, (n,); of a dtype that JAX would narrow the bits, (n, 2) uint32."""
    rounded: Any
    """Where `raw` is bits: the weights over their largest, in float32, (n,)."""
    same: Any = None
    """Where `raw` is bits: whether the weights of the other side are the same numbers."""


class Masses(NamedTuple):
    """Weights in the dtype to compute in."""

    masses: jax.Array  # (n,) sum 1; positive where the weight is
    used: jax.Array  # (n,) whether the weight is positive
    valid: jax.Array  # () nonnegative, finite, not all 0


def given_weights(x: Any, y: Any) -> tuple[Weights | None, Weights | None, tuple[str, str]]:
    """Weights of both sides, outside of the compiled function, and the dtypes of their bits."""
    x, y = (_wide.lossless(w) if w is not None and _wide.is_wide(w) else w for w in (x, y))
    same = _same_numbers(x, y)
    names = tuple(w.dtype.name if w is not None and _wide.is_wide(w) else "" for w in (x, y))
    return _given(x, same), _given(y, same), names  # type: ignore[return-value]


def used_rows(weights: Any) -> np.ndarray | None:
    """Return which weights are positive, where they are known."""
    if weights is None or isinstance(weights, jax.core.Tracer):
        return None
    return np.asarray(weights) > 0


def normalized(weights: Weights | None, n: int, like: jax.Array) -> Masses:
    """Weights with sum 1: relative error ``(tree_depth(n) + 3) u``, and tiny where they underflow.

    Args:
        weights: From `given_weights`; None for equal ones.
        n: How many.
        like: An array of the dtype to compute in.
    """
    dtype, tiny = like.dtype, jnp.finfo(like.dtype).tiny
    if weights is None:
        w = jnp.ones_like(like, shape=(n,))
    else:
        w = weights.raw if weights.rounded is None else weights.rounded
        w = jnp.asarray(w).astype(dtype)
    used = w > 0
    valid = jnp.all(w >= 0) & jnp.any(used) & jnp.all(jnp.isfinite(w))
    w = jnp.where(valid, w, 1)
    used = jnp.where(valid, used, True)
    # The largest becomes about 1: no sum overflows.
    exponent = -jnp.frexp(jnp.max(w))[1]
    w = jnp.where(used, jnp.maximum(_rounding.times_power_of_two(w, exponent), tiny), 0)
    masses = w / _rounding.tree_sum(w)
    return Masses(jnp.where(used, jnp.maximum(masses, tiny), 0), used, valid)


def same_weights(
    x: Weights | None, y: Weights | None, n: int, m: int, dtype: DTypeLike
) -> jax.Array:
    """Return whether both sides have the same weights, number by number, before any rounding."""
    if n != m:
        return jnp.zeros((), bool)
    for side in (x, y):
        if side is not None and side.same is not None:
            return jnp.asarray(side.same)
    if x is None and y is None:
        return jnp.ones((), bool)
    raw = [jnp.ones((n,), dtype) if w is None else jnp.asarray(w.raw) for w in (x, y)]
    if raw[0].dtype == raw[1].dtype:
        return jnp.all(raw[0] == raw[1])
    exact = [_exact(w, dtype) for w in raw]
    return jnp.all((raw[0].astype(dtype) == raw[1].astype(dtype)) & exact[0] & exact[1])


def _exact(w: jax.Array, dtype: DTypeLike) -> jax.Array | bool:
    """Return whether the dtype holds each number."""
    if jnp.issubdtype(w.dtype, jnp.floating):
        return w.astype(dtype).astype(w.dtype) == w
    if w.dtype == bool:
        return True
    digits = jnp.finfo(dtype).nmant + 1
    return True if jnp.iinfo(w.dtype).bits <= digits else w <= 2**digits


def _given(w: Any, same: bool) -> Weights | None:
    if w is None or not _wide.is_wide(w):
        return None if w is None else Weights(w, None)
    w = np.asarray(w)
    with np.errstate(all="ignore"):
        largest = np.max(w).astype(np.float64)
        ratio = w.astype(np.float64) / np.where(largest > 0, largest, 1)
        rounded = np.where(ratio > 0, np.maximum(ratio, np.finfo(np.float32).tiny), ratio)
    bits = np.ascontiguousarray(w).view(np.uint32).reshape(-1, 2)
    return Weights(bits, rounded.astype(np.float32), np.asarray(same))


def _same_numbers(x: Any, y: Any) -> bool:
    """Return whether both are known and equal, number by number; False if in doubt."""
    if x is None or y is None or any(isinstance(w, jax.core.Tracer) for w in (x, y)):
        return False
    return x.dtype == y.dtype and x.shape == y.shape and bool(np.all(np.asarray(x) == y))
