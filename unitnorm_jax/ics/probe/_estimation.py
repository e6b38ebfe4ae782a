"""Estimation shift of the layers that keep running statistics, where their inputs are at hand."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from unitnorm_jax.ics.measures import EstimationShift, estimation_shift
from unitnorm_jax.ics.probe._capture import LayerOutput

Shifts = Mapping[str, Sequence[EstimationShift]]
"""By layer, one entry per call; arrays where a transform stacks layers."""


def shift_at(
    mean: Any, var: Any, axis: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> EstimationShift:
    """Return the shift of a layer that is called with these arguments.

    NaN where it keeps no statistics, or not one per channel of one axis, or is given a mask.

    Args:
        mean: The running mean; None if it keeps none.
        var: The running variance.
        axis: The channels'.
        args: The first is its input.
        kwargs: With or without a ``mask``.
    """
    x = args[0] if args else None
    fits = (
        mean is not None
        and isinstance(axis, int)
        and isinstance(x, jax.Array)
        and jnp.ndim(mean) == 1
        and x.ndim > 1
        and axis % x.ndim
        and x.shape[axis] == len(mean)
        and kwargs.get("mask") is None
    )
    if not fits:
        return EstimationShift(*[jnp.full((), jnp.nan)] * 2)
    shift = estimation_shift(mean, var, x, axis=axis)  # type: ignore[arg-type]
    return EstimationShift(*(value.astype(jnp.float32) for value in shift))


def as_outputs(calls: Mapping[str, Sequence[EstimationShift] | None]) -> list[LayerOutput]:
    """Return shifts in the form of outputs, by whose arrays mapped axes are taken off."""
    return [
        LayerOutput(layer, number, name, "", "", value)
        for layer, shifts in calls.items()
        for number, shift in enumerate(shifts or ())
        for name, value in shift._asdict().items()
    ]


def as_shifts(outputs: Sequence[LayerOutput]) -> dict[str, list[EstimationShift]]:
    """Return the shifts that were in the form of outputs."""
    found: dict[str, list[EstimationShift]] = {}
    for mean, std in zip(outputs[::2], outputs[1::2], strict=True):
        found.setdefault(mean.layer, []).append(EstimationShift(mean.value, std.value))
    return found


def estimation_columns(
    rows: Sequence[tuple[str, int, str]], shifts: Shifts
) -> dict[str, jax.Array]:
    """Return the columns, one number per row.

    Args:
        rows: Layer, call and output of each; layers along stacked axes one after another.
        shifts: Of all layers.
    """
    numbers: dict[tuple[str, int, str], Iterator[int]] = {}
    found = []
    for layer, call, output in rows:
        path = layer.split("[")[0]
        calls = shifts.get(path) or ()
        shift = calls[call] if call < len(calls) else shift_at(None, None, None, (), {})
        place = next(numbers.setdefault((path, call, output), iter(range(1 << 30))))
        found.append([jnp.ravel(value)[place % max(value.size, 1)] for value in shift])
    mean, std = jnp.array(found).T if found else jnp.zeros((2, 0))
    return {"estimation_mean": mean, "estimation_std": std}
