"""What the normalizations of this package demand of their arguments, and say when it is missing."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

UNITS = ("reference", "sample", "rms", "position")


def check_unit(unit: str | float) -> str | float:
    """Return ``unit``: one of ``UNITS``, or a finite kappa > 0 as a float."""
    if isinstance(unit, str) and unit in UNITS:
        return unit
    if not isinstance(unit, str | bool) and math.isfinite(unit) and unit > 0:
        return float(unit)
    raise ValueError(
        f"`unit` (={unit!r}) must be one of {', '.join(map(repr, UNITS))}, or a finite kappa > 0 "
        "that makes the squared norm kappa * sum_c mean_p xhat^2."
    )


def check_hyperparameters(momentum: float, epsilon: float) -> None:
    """Raise unless 0 <= momentum <= 1 and epsilon is finite and >= 0."""
    if not 0 <= momentum <= 1:
        raise ValueError(
            f"`momentum` (={momentum}) must be in [0, 1]: it is the decay rate of the running "
            "statistics, new = momentum * old + (1 - momentum) * batch."
        )
    check_epsilon(epsilon)


def check_epsilon(epsilon: float) -> None:
    """Raise unless epsilon is finite and >= 0."""
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(
            f"`epsilon` (={epsilon}) must be finite and not negative: it keeps variances and "
            "squared norms away from 0; 1e-5 is usual."
        )


def check_axes(
    shape: Sequence[int], axis: int | Sequence[int], sample_axis: int | None = None
) -> tuple[int, ...]:
    """Return the feature axes, ascending, counted from 0; None: the method knows no samples."""
    ndim = len(shape)
    if ndim < 2:
        raise ValueError(
            f"The input must have rank >= 2, with a sample axis and a feature axis; its shape is "
            f"{tuple(shape)}. For a single sample use x[None]."
        )
    named = axis if isinstance(axis, Sequence) else (axis,)
    samples = () if sample_axis is None else (sample_axis,)
    for name, values in (("axis", named), ("sample_axis", samples)):
        for value in values:
            if not -ndim <= value < ndim:
                raise ValueError(
                    f"`{name}` (={value}) is out of range for an input of shape {tuple(shape)}: "
                    f"it must be in [{-ndim}, {ndim - 1}]."
                )
    features = tuple(sorted({value % ndim for value in named}))
    if len(features) != len(named) or not features:
        raise ValueError(f"`axis` (={axis}) must name at least one feature axis, each once.")
    if sample_axis is None and len(features) == ndim:
        raise ValueError(
            f"`axis` (={axis}) names every axis of an input of shape {tuple(shape)}: leave one or "
            "more of them, to take statistics over."
        )
    if sample_axis is not None and sample_axis % ndim in features:
        raise ValueError(
            f"`sample_axis` (={sample_axis}) must not be a feature axis (`axis`={axis}) of an "
            f"input of shape {tuple(shape)}."
        )
    return features


def check_axis(shape: Sequence[int], axis: int, sample_axis: int | None = None) -> int:
    """The same for a method with one feature axis."""
    if isinstance(axis, Sequence):
        raise ValueError(f"`axis` (={axis}) must be one feature axis here, not a sequence of them.")
    (feature,) = check_axes(shape, axis, sample_axis)
    return feature


def filter_axes(shape: Sequence[int], feature_axes: int | Sequence[int]) -> tuple[int, ...]:
    """Return the axes of a kernel that make up one filter: all but those of the outputs."""
    ndim = len(shape)
    named = feature_axes if isinstance(feature_axes, Sequence) else (feature_axes,)
    features = {value % ndim for value in named if -ndim <= value < ndim}
    if len(features) != len(named) or not 0 < len(features) < ndim:
        raise ValueError(
            f"`feature_axes` (={feature_axes}) must name one or more of the axes of a kernel of "
            f"shape {tuple(shape)}, each once, and leave at least one for the inputs."
        )
    return tuple(i for i in range(ndim) if i not in features)


def check_floating(x: jax.Array) -> None:
    """Raise unless x holds real floating-point numbers, at least one per channel."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"The input must be floating, not {x.dtype}: integer and complex inputs have no "
            "normalization here. Convert with x.astype(jnp.float32)."
        )
    if x.size == 0:
        raise ValueError(f"The input must not be empty; its shape is {x.shape}.")


def resolve_dtypes(
    x: jax.Array, parameters: Iterable[jax.Array | None], dtype: Any, force_float32: bool
) -> tuple[Any, Any]:
    """Return the dtypes of the result (as Flax: x's with the parameters') and of the arithmetic."""
    given = [parameter for parameter in parameters if parameter is not None]
    result_dtype = jnp.result_type(x, *given) if dtype is None else dtype
    least = jnp.float32 if force_float32 else x.dtype
    return result_dtype, jnp.promote_types(jnp.promote_types(x.dtype, dtype or x.dtype), least)


def check_mask(mask: Any, shape: Sequence[int]) -> jax.Array:
    """Return the mask as booleans, broadcast to ``shape``."""
    mask = jnp.asarray(mask, bool)
    try:
        broadcast = np.broadcast_shapes(mask.shape, tuple(shape)) == tuple(shape)
    except ValueError:
        broadcast = False
    if not broadcast:
        raise ValueError(
            f"`mask` of shape {mask.shape} does not broadcast to the input's {tuple(shape)}. "
            "Give it size 1 on the axes it does not depend on, the feature axis for one."
        )
    mask = jnp.expand_dims(mask, tuple(range(len(shape) - mask.ndim)))
    return jnp.broadcast_to(mask, tuple(shape))


def check_features(name: str, value: jax.Array, shape: Sequence[int]) -> None:
    """Raise unless a per-feature array has the shape of the feature axes."""
    if value.shape != tuple(shape):
        raise ValueError(
            f"`{name}` has shape {value.shape}, but the feature axes of the input have shape "
            f"{tuple(shape)}: they must be equal."
        )
