"""Which axes of an input are samples, positions and features, and errors that say what is wrong."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


def named_axes(
    name: str, axis: Any, shape: Sequence[Any], allowed: str = "an integer"
) -> tuple[int, ...]:
    """Return an axis, or a sequence of them, as integers within the range of the shape."""
    try:
        values = axis if isinstance(axis, Sequence | np.ndarray) and np.ndim(axis) else (axis,)
        named = tuple(operator.index(value) for value in values)
    except TypeError:
        raise ValueError(
            f"`{name}` (={axis!r}) must be {allowed}, such as -1 for the last."
        ) from None
    for value in named:
        if not -len(shape) <= value < len(shape):
            raise ValueError(
                f"`{name}` (={value}) is out of range for an input of shape {tuple(shape)}: "
                f"it must be in [{-len(shape)}, {len(shape) - 1}]."
            )
    return named


def check_axes(shape: Sequence[Any], axis: Any, sample_axis: Any = None) -> tuple[int, ...]:
    """Return the feature axes, ascending, counted from 0; None: the method knows no samples."""
    _check_rank(shape, "For a single sample use x[None].")
    if sample_axis is not None:
        if np.ndim(sample_axis):
            raise ValueError(f"`sample_axis` (={sample_axis}) must be one axis here.")
        return check_layout(shape, axis, sample_axis)[1]
    features = _feature_axes(shape, axis)
    if len(features) == len(shape):
        raise ValueError(
            f"`axis` (={axis}) names every axis of an input of shape {tuple(shape)}: leave one or "
            "more of them, to take statistics over."
        )
    return features


def check_layout(
    shape: Sequence[Any], axis: Any, sample_axis: Any
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the axes of samples and of features, each ascending and counted from 0.

    A ``sample_axis`` of None: the input is one sample, and has no axis of them.
    """
    ndim = len(shape)
    if sample_axis is None:
        if not ndim:
            raise ValueError(
                "The input must have rank >= 1, with a feature axis, under `sample_axis` (=None); "
                "its shape is ()."
            )
        return (), _feature_axes(shape, axis)
    _check_rank(
        shape, "For one sample in each call, under vmap, give `sample_axis=None`; else use x[None]."
    )
    features = _feature_axes(shape, axis)
    allowed = "an integer, a tuple of integers, or None where each call has one sample"
    named = named_axes("sample_axis", sample_axis, shape, allowed)
    samples = tuple(sorted({value % ndim for value in named}))
    if len(samples) != len(named) or not samples:
        raise ValueError(
            f"`sample_axis` (={sample_axis}) must name at least one axis of samples, each once; "
            "None says that each call has one sample."
        )
    if set(samples) & set(features):
        raise ValueError(
            f"`sample_axis` (={sample_axis}) must not be a feature axis (`axis`={axis}) of an "
            f"input of shape {tuple(shape)}."
        )
    return samples, features


def _check_rank(shape: Sequence[Any], way_out: str) -> None:
    if len(shape) < 2:
        raise ValueError(
            f"The input must have rank >= 2, with a sample axis and a feature axis; its shape is "
            f"{tuple(shape)}. {way_out}"
        )


def _feature_axes(shape: Sequence[Any], axis: Any) -> tuple[int, ...]:
    named = named_axes("axis", axis, shape, "an integer or a sequence of integers")
    features = tuple(sorted({value % len(shape) for value in named}))
    if len(features) != len(named) or not features:
        raise ValueError(f"`axis` (={axis}) must name at least one feature axis, each once.")
    return features


def check_axis(shape: Sequence[Any], axis: Any, sample_axis: Any = None) -> int:
    """Return the same for a method with one feature axis."""
    if np.ndim(axis):
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


def unit_axes(
    kernel: jax.Array, feature_axes: int | Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the axes of the units, in the order given and counted from 0, and their sizes."""
    filter_axes(kernel.shape, feature_axes)
    named = feature_axes if isinstance(feature_axes, Sequence) else (feature_axes,)
    axes = tuple(axis % kernel.ndim for axis in named)
    return axes, tuple(kernel.shape[axis] for axis in axes)
