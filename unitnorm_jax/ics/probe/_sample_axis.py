"""Along which axis of an output the samples lie, seen by tracing a batch of one sample more."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from unitnorm_jax.ics.probe._batch import Axes

Shapes = Sequence[tuple[int, ...]]


class Output(NamedTuple):
    """An array in which an axis is looked for."""

    name: str
    """For messages."""
    shape: tuple[int, ...]
    taken: tuple[int, ...] = ()
    """Axes that are known to be others."""


class Found(NamedTuple):
    """The axis of an output, or why there is none."""

    axis: int | None
    note: str = ""
    """Where several fit, and one was taken."""
    reason: str = ""
    """Where none fits."""


def find_axes(
    forward: Callable[[Any], Sequence[Any]],
    arrays: Sequence[Any],
    growing: Sequence[Axes],
    n: int,
    outputs: Sequence[Output],
    *,
    preferred: int = 0,
    what: str = "sample",
) -> list[Found]:
    """Find the axis of each output that grows with the batch, from n to n + 1 entries.

    Nothing is computed. The arrays of the batch grow as `growing` says first; if the model cannot
    be traced so, or two axes of an output grow, as it says next. If none can be traced (sizes
    written into the model, shardings), shapes decide: an output has its samples along the
    preferred axis, if that has n entries.

    Args:
        forward: From the arrays of the batch to the outputs.
        arrays: Of the batch.
        growing: Ways to grow: the axis of each array, or None.
        n: Entries along these axes.
        outputs: What `forward` returns for `arrays`.
        preferred: The axis that is taken, among those not taken, where several fit.
        what: A name for one entry: "sample" or "step".

    Warns:
        UserWarning: Where two axes fit, and the preferred one is taken.
    """
    shapes: list[Shapes] = []
    for axes in growing:
        traced = _traced(forward, arrays, axes, n, len(outputs))
        if traced is not None:
            shapes.append(traced)
            if not any(len(_axes(y, g, n)) > 1 for y, g in zip(outputs, traced, strict=True)):
                break
    found = []
    for i, output in enumerate(outputs):
        fitting = [_axes(output, s[i], n) for s in shapes] or [_axes(output, None, n)]
        # Of axes that grow with the whole batch, the one that grows with its first array alone.
        chosen = next((axes for axes in fitting if len(axes) == 1), fitting[0])
        free = [a for a in range(len(output.shape)) if a not in output.taken]
        first = free[preferred] if preferred < len(free) else -1
        found.append(_the_axis(output, chosen, first, n, bool(shapes), what))
    return found


def _the_axis(
    output: Output, axes: list[int], preferred: int, n: int, traced: bool, what: str
) -> Found:
    if len(axes) == 1 and (traced or axes[0] == preferred):
        return Found(axes[0])
    how = (
        f"n={n} becomes n={n + 1} with one {what} more"
        if traced
        else f"n={n}; a batch of {n + 1} cannot be traced"
    )
    if preferred not in axes:
        return Found(
            None,
            reason=f"must have one entry per {what} along one axis ({how}), but has shape "
            f"{output.shape}"
            + (f", where axes {axes} fit" if axes else "")
            + f"; return it with the {what}s first, or leave the layer out with `layers`.",
        )
    note = (
        f"the {what}s could lie along each of the axes {axes} of {output.shape} ({how}): axis "
        f"{preferred} is taken"
    )
    warnings.warn(
        f"{output.name} has shape {output.shape}, where the {what}s could lie along each of the "
        f"axes {axes} ({how}): axis {preferred} is taken. Choose a number of {what}s that no other "
        "axis has.",
        stacklevel=2,
    )
    return Found(preferred, note)


def _axes(output: Output, grown: tuple[int, ...] | None, n: int) -> list[int]:
    """Axes of n entries that have n + 1 in `grown`; where that is not known, all of n entries."""
    if grown is None:
        grown = tuple(size + 1 for size in output.shape)
    if len(grown) != len(output.shape):
        return []
    pairs = enumerate(zip(output.shape, grown, strict=True))
    return [i for i, pair in pairs if pair == (n, n + 1) and i not in output.taken]


def _traced(forward: Any, arrays: Any, axes: Axes, n: int, outputs: int) -> Shapes | None:
    """Shapes of the outputs for one sample more; None if the model cannot be traced."""

    def grown(axis: int | None, x: Any) -> jax.ShapeDtypeStruct:
        shape = tuple(n + 1 if i == axis else size for i, size in enumerate(x.shape))
        return jax.ShapeDtypeStruct(shape, x.dtype)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = [grown(axis, x) for axis, x in zip(axes, arrays, strict=True)]
            shapes = [y.shape for y in jax.eval_shape(forward, given)]
    except Exception:  # whatever a model raises that was not written for this size
        return None
    return shapes if len(shapes) == outputs else None
