"""Samples as matrices, and the errors at trace time: rule, value, way out."""

from typing import Any

import jax
import jax.numpy as jnp

from unitnorm_jax.ics import rounding

METHODS = ("auto", "pairing", "scipy", "sinkhorn")


def as_matrices(x: Any, y: Any) -> tuple[jax.Array, jax.Array]:
    """Both samples, checked, (n, ...) -> (n, d), in the dtype to compute in."""
    check_samples(x, y)
    dtype = rounding.working_dtype(x, y)
    x, y = (jnp.asarray(z).reshape(z.shape[0], -1).astype(dtype) for z in (x, y))
    return x, y


def centred(x: Any, y: Any) -> tuple[jax.Array, jax.Array]:
    """Matrices minus the first sample of x, so that a large common offset does no harm."""
    x, y = as_matrices(x, y)
    return x - x[:1], y - x[:1]


def norms(x: jax.Array) -> jax.Array:
    """Euclidean norm of every row, (n, d) -> (n,)."""
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=1))


def check_samples(x: Any, y: Any) -> None:
    """Nonempty, real, the same trailing shape."""
    for name, array in (("x", x), ("y", y)):
        if array.ndim < 1 or 0 in array.shape:
            raise ValueError(
                f"`{name}` must hold at least one sample of at least one number, but has shape "
                f"{array.shape}; give it as (n, ...), for one axis (n, 1) or (n,)."
            )
        if not (
            jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
        ):
            raise ValueError(
                f"`{name}` must be real, but is {array.dtype}; convert it, for example complex "
                "numbers to two real columns."
            )
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"`x` and `y` must agree in all axes but the first, but are {x.shape} and "
            f"{y.shape}; the same layer's output before and after does."
        )


def check_weights(x: Any, y: Any, x_weights: Any, y_weights: Any) -> None:
    """One weight per sample."""
    for name, weights, array in (("x", x_weights, x), ("y", y_weights, y)):
        if weights is not None and weights.shape != array.shape[:1]:
            raise ValueError(
                f"`{name}_weights` (=shape {weights.shape}) must hold one weight per sample of "
                f"`{name}` (=shape {array.shape}); sum or repeat other axes first."
            )


def check_method(x: Any, y: Any, x_weights: Any, y_weights: Any, method: Any) -> None:
    """A known method, and one that can treat these samples."""
    if not callable(method) and method not in METHODS:
        raise ValueError(
            f"`method` (={method!r}) must be one of {', '.join(METHODS)}, or a callable that "
            "maps a cost matrix to a permutation."
        )
    if method == "pairing" and x.shape[0] != y.shape[0]:
        raise ValueError(
            f"`method` 'pairing' needs paired samples, but x has {x.shape[0]} and y "
            f"{y.shape[0]}; use 'auto', or 'sinkhorn'."
        )
    unequal = x.shape[0] != y.shape[0] or x_weights is not None or y_weights is not None
    if callable(method) and unequal:
        raise ValueError(
            "`method` is an assignment solver, which needs as many samples in x "
            f"(={x.shape[0]}) as in y (={y.shape[0]}) and no weights; use 'auto', or 'sinkhorn'."
        )
