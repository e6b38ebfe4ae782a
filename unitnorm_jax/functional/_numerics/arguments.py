"""What the normalizations of this package demand of their arguments, and say when it is missing."""

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

UNITS = ("reference", "sample", "rms", "position")


def is_traced(value: Any) -> bool:
    """Return whether a value is known only when the program runs."""
    return isinstance(value, jax.core.Tracer)


def is_within(value: Any, least: float | int, greatest: float | int = math.inf) -> bool:
    """Return whether ``value`` is a finite scalar of [least, greatest]; True for a traced scalar.

    Anything else, text and None and arrays of several numbers among it, is not.
    """
    if is_traced(value):
        return value.shape == ()
    if isinstance(value, str | bytes):
        return False
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return math.isfinite(number) and least <= number <= greatest


def as_number(value: Any) -> float:
    """Return a number as a float; NaN, which is in no range, for what is none or is traced."""
    if isinstance(value, str | bytes | bool) or is_traced(value):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def weak(value: Any) -> Any:
    """Return a number that keeps the dtype of arrays in arithmetic; traced ones as they are."""
    return value if is_traced(value) else float(value)


def check_unit(unit: Any) -> str | float:
    """Return ``unit``: one of ``UNITS``, or a finite kappa > 0 as a float."""
    if isinstance(unit, str) and unit in UNITS:
        return unit
    kappa = as_number(unit)
    if math.isfinite(kappa) and kappa > 0:
        return kappa
    raise ValueError(
        f"`unit` (={unit!r}) must be one of {', '.join(map(repr, UNITS))}, or a finite kappa > 0 "
        "that makes the squared norm kappa * sum_c mean_p xhat^2, and a constant of the program."
    )


def check_hyperparameters(momentum: Any, epsilon: Any) -> None:
    """Raise unless 0 <= momentum <= 1 and epsilon is finite and >= 0, as far as they are known."""
    if not is_traced(momentum) and not 0 <= as_number(momentum) <= 1:
        raise ValueError(
            f"`momentum` (={momentum}) must be in [0, 1]: it is the decay rate of the running "
            "statistics, new = momentum * old + (1 - momentum) * batch."
        )
    check_epsilon(epsilon)


def check_epsilon(epsilon: Any) -> None:
    """Raise unless epsilon is finite and >= 0, or traced."""
    if not is_traced(epsilon) and not 0 <= as_number(epsilon) < math.inf:
        raise ValueError(
            f"`epsilon` (={epsilon}) must be finite and not negative: it keeps variances and "
            "squared norms away from 0; 1e-5 is usual."
        )


def as_array(x: Any) -> jax.Array:
    """Return x as an array; integers of numpy that JAX would wrap round become float32 instead."""
    if isinstance(x, np.ndarray) and x.dtype.kind in "iu":
        narrow = jax.dtypes.canonicalize_dtype(x.dtype)
        x = x if narrow == x.dtype else x.astype(np.float32)
    return jnp.asarray(x)


def as_floating(x: Any, empty: bool = False) -> jax.Array:
    """Return x as an array of real floating-point numbers; integers and booleans are converted.

    Raise if it is complex or, unless that is allowed, has not one value per channel.
    """
    x = as_array(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        if not (jnp.issubdtype(x.dtype, jnp.integer) or x.dtype == bool):
            raise ValueError(
                f"The input must be real, not {x.dtype}: it has no normalization here. Normalize "
                "the real and the imaginary part, x.real and x.imag."
            )
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if not empty and 0 in x.shape:
        raise ValueError(
            f"The input must not be empty: a batch without values has no statistics. Its shape is "
            f"{x.shape}; leave empty batches out, or use running averages."
        )
    return x


def check_dtype(dtype: Any) -> Any:
    """Return the dtype of a result; raise unless it is None or real and floating."""
    if dtype is None:
        return None
    try:
        floating = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise ValueError(
            f"`dtype` (={dtype!r}) must be a floating dtype such as jnp.float32: what is "
            "normalized is of order 1, and integers would cut it off. Convert the result instead."
        )
    return jnp.dtype(dtype)


def resolve_dtypes(
    x: jax.Array, parameters: Iterable[jax.Array | None], dtype: Any
) -> tuple[Any, Any]:
    """Return the dtypes of the result (as Flax: x's with the parameters') and of the arithmetic.

    The latter is float32 at least, as the sums of ``jnp.mean`` are.
    """
    given = [parameter for parameter in parameters if parameter is not None]
    dtype = check_dtype(dtype)
    result_dtype = jnp.result_type(x, *given) if dtype is None else dtype
    if not jnp.issubdtype(result_dtype, jnp.floating):
        result_dtype = jnp.promote_types(result_dtype, jnp.float32)
    floating = jnp.promote_types(x.dtype, jnp.float32)
    return result_dtype, jnp.promote_types(floating, dtype or floating)


def check_mask(mask: Any, shape: Sequence[Any]) -> jax.Array:
    """Return the mask as booleans, broadcast to ``shape``."""
    if not hasattr(mask, "dtype"):
        mask = np.asarray(mask)
    if mask.dtype != bool and not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(
            f"`mask` has dtype {mask.dtype}, but must hold booleans, or integers of which 0 is "
            "False: fractions are no weights here. Give mask > 0.5, or mask != 0."
        )
    mask = jnp.asarray(mask, bool)
    try:
        fits = jnp.broadcast_shapes(mask.shape, tuple(shape)) == tuple(shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"`mask` of shape {mask.shape} does not broadcast to the input's {tuple(shape)}. "
            "Give it size 1 on the axes it does not depend on, the feature axis for one."
        )
    mask = jnp.expand_dims(mask, tuple(range(len(shape) - mask.ndim)))
    return jnp.broadcast_to(mask, tuple(shape))


def check_features(name: str, value: jax.Array, shape: Sequence[Any]) -> None:
    """Raise unless a per-feature array has the shape of the feature axes."""
    if value.shape != tuple(shape):
        raise ValueError(
            f"`{name}` has shape {value.shape}, but the feature axes of the input have shape "
            f"{tuple(shape)}: they must be equal."
        )


def check_options(
    *, unit: Any, sample_axis: Any, alpha_init: Any, bessel_correction: Any
) -> dict[str, Any]:
    """Return the options of a unitized layer before there is an input; they can be hashed."""
    try:
        if isinstance(sample_axis, Sequence) and not isinstance(sample_axis, str):
            sample_axis = tuple(operator.index(value) for value in sample_axis)
        elif sample_axis is not None:
            sample_axis = operator.index(sample_axis)
    except TypeError:
        raise ValueError(
            f"`sample_axis` (={sample_axis!r}) must be an integer, such as 0 for the first, a "
            "tuple of integers, or None where each call has one sample."
        ) from None
    if not callable(alpha_init):
        raise ValueError(
            f"`alpha_init` (={alpha_init!r}) must be an initializer, such as "
            "nn.initializers.constant(0.5)."
        )
    if not isinstance(bessel_correction, bool):
        raise ValueError(f"`bessel_correction` (={bessel_correction!r}) must be True or False.")
    return {
        "unit": check_unit(unit),
        "sample_axis": sample_axis,
        "alpha_init": alpha_init,
        "bessel_correction": bessel_correction,
    }
