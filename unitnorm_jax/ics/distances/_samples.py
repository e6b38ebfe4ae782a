"""Samples as matrices, and the errors at trace time: rule, value, way out."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.ics.distances import _rounding
from unitnorm_jax.ics.distances._wide import narrow

METHODS = ("auto", "pairing", "scipy", "sinkhorn")
# What the bounds take and return.
Before = Shaped[Array | np.ndarray, "n ..."]
After = Shaped[Array | np.ndarray, "m ..."]
Scalar = Float[Array, ""]


class Given(NamedTuple):
    """Two samples on their way into a compiled function: JAX takes these as they are."""

    x: Any
    y: Any
    x_error: Any
    """How far each row may be from the sample that was given, (n,); None: they are the same."""
    y_error: Any


class Samples(NamedTuple):
    """Two samples as matrices in the dtype to compute in, scaled so that no square overflows."""

    x: jax.Array  # (n, d)
    y: jax.Array  # (m, d)
    exponent: jax.Array  # () the numbers are 2^exponent times those given
    error: jax.Array | None  # () W1 of the samples given is within this of theirs, unscaled
    finite: jax.Array  # () whether all numbers are


def given(x: Any, y: Any, *, centre: bool = True, used: Any = None) -> Given:
    """Check two samples, and take in dtypes that JAX would narrow (`_wide.narrow`).

    Call it outside of the compiled function, which sees numbers that are narrowed already.

    Args:
        x: Sample (n, ...).
        y: Sample (m, ...).
        centre: Whether a common offset may be taken off: distances do not depend on it.
        used: Masks of the rows that count, or None.
    """
    check_samples(x, y)
    return Given(*itertools.chain(*narrow((x, y), centre=centre, used=used)))


def as_matrices(
    samples: Given, *, centre: bool = True
) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    """Both samples, (n, ...) -> (n, d), in the dtype to compute in, and the errors of the rows.

    Integers with more digits than that dtype are taken apart, subtracted exactly, and rounded
    once: (n,), how far each row may be from the one given.
    """
    x, y, *errors = samples
    dtype = _rounding.working_dtype(x, y)
    x, y = (jnp.asarray(z).reshape(z.shape[0], -1) for z in (x, y))
    long = [_is_long(z, dtype) for z in (x, y)]
    whole = all(jnp.issubdtype(z.dtype, jnp.integer) or z.dtype == bool for z in (x, y))
    origin = _halves(x[:1], dtype) if any(long) and centre and whole else None
    result = []
    for z, is_long in zip((x, y), long, strict=True):
        if origin is None and not is_long:
            result.append(z.astype(dtype))
            continue
        high, low, unit = _halves(z, dtype)
        if origin is not None:
            high, low = high - origin[0], low - origin[1]
        total = high * unit + low  # one rounding, of a number above 2^24
        result.append(total)
        largest = jnp.max(
            jnp.where(jnp.abs(total) >= 2 / jnp.finfo(dtype).eps, jnp.abs(total), 0), axis=1
        )
        bound = 1.01 * math.sqrt(z.shape[1]) * _rounding.unit_roundoff(dtype) * largest
        errors[len(result) - 1] = bound
    return result[0], result[1], errors[0], errors[1]


def prepare(samples: Given, *, centre: bool = True) -> Samples:
    """`as_matrices`, scaled; for bounds that weigh all rows alike."""
    return scaled(Given(*as_matrices(samples, centre=centre)))


def scaled(samples: Given) -> Samples:
    """`prepare` of matrices in the dtype to compute in."""
    x, y, *errors = samples
    exponent = _rounding.scale_exponent(x, y, room(x, y))
    finite = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))
    x, y = (_rounding.times_power_of_two(z, exponent) for z in (x, y))
    # Written once: XLA would scale again in each of the sums.
    x, y = lax.optimization_barrier((x, y))
    return Samples(x, y, exponent, mean_error_of_rows(*errors), finite)


def room(x: jax.Array, y: jax.Array) -> int:
    """Factor by which sums of squares may outgrow the square of the largest entry.

    d for the norm of a row; n^2 for the square of a mean, which XLA computes as that of the sum
    over n^2: it moves constant factors, though it keeps the order of sums.
    """
    return x.shape[1] * max(x.shape[0], y.shape[0]) ** 2


def lower_bound(samples: Samples, value: jax.Array, slack: jax.Array | float) -> jax.Array:
    """``value - slack``, rounded down, in the unit of the samples given, and at least 0."""
    lower = _rounding.nudge(value - slack, slack, -4)
    lower = _rounding.times_power_of_two(jnp.maximum(lower, 0), -samples.exponent)
    lower = jnp.minimum(lower, jnp.finfo(lower.dtype).max)
    if samples.error is not None:
        lower = jnp.maximum(_rounding.nudge(lower - samples.error, lower + samples.error, -2), 0)
    return jnp.where(samples.finite, lower, jnp.nan)


def upper_bound(samples: Samples, value: jax.Array, slack: jax.Array | float) -> jax.Array:
    """``value + slack``, rounded up, in the unit of the samples given; 0 only where both are."""
    upper = _rounding.nudge(value + slack, slack, 4)
    tiny = jnp.finfo(upper.dtype).tiny  # 0 would be no upper bound on what underflows
    unscaled = jnp.maximum(_rounding.times_power_of_two(upper, -samples.exponent), tiny)
    upper = jnp.where(upper <= 0, 0, unscaled)  # a NaN stays one
    if samples.error is not None:
        upper = _rounding.nudge(upper + samples.error, upper + samples.error, 2)
    return jnp.where(samples.finite, upper, jnp.nan)


def norms(x: jax.Array) -> jax.Array:
    """Euclidean norm of every row, (n, d) -> (n,): relative error `norm_error`."""
    return jnp.sqrt(_rounding.tree_sum(jnp.square(x), axis=1))


def norm_error(d: int) -> float:
    """Relative error of `norms` in units of the roundoff, where no square underflows.

    Half that of the sum of squares, and 4 for the square root as in `cost.cost_error`.
    """
    return _rounding.tree_depth(d) / 2 + 4.5


def underflow(d: int, dtype: DTypeLike) -> float:
    """Return what squares that underflow take from the norm of a row, or give to it."""
    return 4 * math.sqrt(d * float(jnp.finfo(dtype).tiny))


def mean(x: jax.Array) -> jax.Array:
    """Mean over axis 0: an error of `mean_error` roundoffs of the mean of ``|x|``."""
    return _rounding.tree_sum(x) / x.shape[0]


def mean_error(n: int) -> int:
    """See `mean`; XLA may take the product with 1/n for the quotient."""
    return _rounding.tree_depth(n) + 2


def mean_error_of_rows(*errors: jax.Array | None) -> jax.Array | None:
    """Return how far W1 may be off, from how far each row may be: their mean, rounded up."""
    known = [jnp.asarray(e) for e in errors if e is not None]
    if not known:
        return None
    total = _rounding.tree_sum_of(mean(e) for e in known)
    total = _rounding.nudge(total, total, 8 + max(mean_error(e.shape[0]) for e in known))
    # A share of the smallest number would be taken for 0.
    some = jnp.any(jnp.stack([jnp.any(e > 0) for e in known]))
    return jnp.where(some, jnp.maximum(total, jnp.finfo(total.dtype).tiny), total)


def _is_long(x: jax.Array, dtype: DTypeLike) -> bool:
    """Return whether integers may have more digits than the dtype: int32 in float32."""
    whole = jnp.issubdtype(x.dtype, jnp.integer)
    return whole and jnp.iinfo(x.dtype).bits > jnp.finfo(dtype).nmant + 1


def _halves(x: jax.Array, dtype: DTypeLike) -> tuple[jax.Array, jax.Array, int]:
    """Integers as ``high * unit + low``, each of few enough digits to be subtracted exactly."""
    bits = 8 * jnp.dtype(dtype).itemsize // 2
    if not _is_long(x, dtype):
        x = x.astype(jnp.int64 if bits == 32 else jnp.int32)
    return (x >> bits).astype(dtype), (x & (2**bits - 1)).astype(dtype), 2**bits


def check_samples(x: Any, y: Any) -> None:
    """Nonempty, real, the same trailing shape."""
    for name, array in (("x", x), ("y", y)):
        if array.ndim < 1 or 0 in array.shape:
            raise ValueError(
                f"`{name}` must hold at least one sample of at least one number, but has shape "
                f"{array.shape}; give it as (n, ...), for one axis (n, 1) or (n,)."
            )
        check_real(name, array)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"`x` and `y` must agree in all axes but the first, but are {x.shape} and "
            f"{y.shape}; the same layer's output before and after does."
        )


def check_real(name: str, array: Any) -> None:
    """Return numbers of a dtype that JAX has; bool counts as 0 and 1."""
    kinds = jnp.floating, jnp.integer, jnp.bool_
    if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
        raise ValueError(
            f"`{name}` must be real, but is {array.dtype}; convert it, for example complex "
            "numbers to two real columns."
        )
    if array.dtype.itemsize > 8:
        raise ValueError(
            f"`{name}` must be of a dtype that JAX has, but is {array.dtype}; convert it to "
            "float64, for which differences are taken before any rounding to float32."
        )


def check_weights(x: Any, y: Any, x_weights: Any, y_weights: Any) -> None:
    """Return one weight per sample."""
    for name, weights, array in (("x", x_weights, x), ("y", y_weights, y)):
        if weights is not None and weights.shape != array.shape[:1]:
            raise ValueError(
                f"`{name}_weights` (=shape {weights.shape}) must hold one weight per sample of "
                f"`{name}` (=shape {array.shape}); sum or repeat other axes first."
            )
        if weights is not None:
            check_real(f"{name}_weights", weights)


def check_method(x: Any, y: Any, x_weights: Any, y_weights: Any, method: Any) -> None:
    """Return a known method, and one that can treat these samples."""
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
