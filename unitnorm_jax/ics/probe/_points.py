"""From the outputs of layers to points: one block of samples per layer, or why there is none."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax.ics.probe._batch import Batch, Selection
from unitnorm_jax.ics.probe._capture import LayerOutput
from unitnorm_jax.ics.probe._sample_axis import Found, Output, find_axes
from unitnorm_jax.ics.probe._split import is_array


class Place(NamedTuple):
    """Where the points of an output lie."""

    stacked: tuple[int, ...]
    """Axes of the layers, or of other copies, that a transform stacked."""
    samples: int
    steps: int | None
    note: str


def unfit(output: LayerOutput) -> str:
    """Return why an output holds no points, whatever its axes mean; "" if it may."""
    y = output.value
    if output.reason:
        return output.reason
    if not is_array(y) or not (
        jnp.issubdtype(y.dtype, jnp.floating) or jnp.issubdtype(y.dtype, jnp.integer)
    ):
        kind = getattr(y, "dtype", type(y).__name__)
        return f"must hold real numbers, but is {kind}; leave the layer out with `layers`."
    if y.size == 0:
        return f"must hold numbers, but has shape {y.shape}; leave the layer out with `layers`."
    return ""


def name_of(output: LayerOutput) -> str:
    """Return the name of an output in a message."""
    kind = f" ({output.kind})" if output.kind else ""
    return f"Output {output.output or 'of'} layer {output.layer!r}{kind}"


def places(
    forward: Callable[[Any], Sequence[Any]],
    arrays: Sequence[jax.Array],
    batch: Batch,
    selection: Selection,
    outputs: Sequence[LayerOutput],
) -> list[Place | str]:
    """Find the axes of each output, or say why it has none of the samples.

    Args:
        forward: From the arrays of the batch to the values of the outputs.
        arrays: Of the batch.
        batch: What is known of it.
        selection: Which points are wanted.
        outputs: Described, with their values.
    """
    looked_at = [Output(name_of(o), o.value.shape, o.axes) for o in outputs]
    samples = find_axes(forward, arrays, batch.growing, batch.n, looked_at, preferred=batch.axis)
    steps = [Found(None)] * len(outputs)
    if selection.steps is not None:
        t, axis = selection.steps, selection.step_axis
        growing = tuple(
            axis if x.ndim > axis and x.shape[axis] == t and batch.growing[0][i] != axis else None
            for i, x in enumerate(arrays)
        )
        alone = tuple(
            axis if place is not None and a is not None else None
            for a, place in zip(growing, batch.growing[-1], strict=True)
        )
        taken = [
            o._replace(taken=(*o.taken, *([] if s.axis is None else [s.axis])))
            for o, s in zip(looked_at, samples, strict=True)
        ]
        # The axis of the samples is taken, so those from it on count one less.
        preferred = axis - (axis > batch.axis)
        steps = find_axes(
            forward, arrays, (growing, alone), t, taken, preferred=preferred, what="step"
        )
    return [_place(o, s, t, selection) for o, s, t in zip(outputs, samples, steps, strict=True)]


def _place(output: LayerOutput, samples: Found, steps: Found, selection: Selection) -> Place | str:
    if samples.axis is None:
        return samples.reason
    notes = [samples.note, steps.note]
    if selection.steps is not None and steps.axis is None:
        if selection.points == "steps":
            return steps.reason
        notes.append(f"it has no axis of {selection.steps} steps: the mask's steps are in it")
    return Place(output.axes, samples.axis, steps.axis, "; ".join(filter(None, notes)))


def points(value: jax.Array, place: Place, selection: Selection) -> jax.Array:
    """Return the points of an output, (copies, points, numbers).

    Steps that are masked are no points, or 0 in the points of their samples.

    Args:
        value: Of the output.
        place: Of its samples and steps.
        selection: Which points are wanted.
    """
    axes = [*place.stacked, place.samples, *([] if place.steps is None else [place.steps])]
    y = jnp.moveaxis(value, axes, range(len(axes)))
    copies = math.prod(y.shape[: len(place.stacked)])
    y = y.reshape(copies, *y.shape[len(place.stacked) :])
    mask = selection.mask
    if selection.points == "steps":
        y = y.reshape(copies, y.shape[1] * y.shape[2], -1)
        if mask is not None:
            full = np.broadcast_to(mask.reshape(len(mask), -1), (len(mask), selection.steps or 1))
            y = y[:, np.flatnonzero(full)]
        return y
    if mask is not None:
        if mask.ndim == 2 and place.steps is not None:
            y = jnp.where(mask.reshape(1, *mask.shape, *(1,) * (y.ndim - 3)), y, 0)
        y = y[:, np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))]
    return y.reshape(*y.shape[:2], -1)


def weights_of_points(selection: Selection) -> np.ndarray | None:
    """Return the weights of what `points` returns, in its order."""
    weights, mask = selection.weights, selection.mask
    if weights is None:
        return None
    if selection.points == "steps":
        weights = np.repeat(weights[:, None], selection.steps or 1, axis=1)
        if mask is None:
            return weights.reshape(-1)
        return weights[np.broadcast_to(mask.reshape(len(mask), -1), weights.shape)]
    return weights if mask is None else weights[mask.reshape(len(mask), -1).any(axis=1)]


def indices(shape: tuple[int, ...], stacked: tuple[int, ...]) -> list[str]:
    """Return the names of the copies along the stacked axes: "[3]", "[0,3]"; one "" if none."""
    sizes = [range(shape[axis]) for axis in stacked]
    if not sizes:
        return [""]
    return [f"[{','.join(map(str, index))}]" for index in itertools.product(*sizes)]
