"""Along which axis of an output the samples lie, seen by tracing a batch of one sample more."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax

Shapes = Sequence[tuple[int, ...]]


def sample_axes(
    forward: Callable[[Any], Sequence[Any]], args: Any, n: int, outputs: Sequence[tuple[str, Any]]
) -> list[int]:
    """Return the axis of each output that grows with the batch, from n to n + 1 entries.

    Nothing is computed. Every array of the batch that has n entries along its first axis grows; if
    the model cannot be traced so, or two axes of an output grow, only the first array does. If that
    cannot be traced either (sizes written into the model, shardings), shapes decide: an output has
    its samples along the first axis, if that has n entries.

    Args:
        forward: From the arguments of the model to the outputs.
        args: Arrays; the first axis of the first one is that of the samples.
        n: Samples.
        outputs: A name, for messages, and the array of each output of `args`.

    Returns:
        One axis per output.

    Raises:
        ValueError: If an output has no such axis, or two of which none is the first.

    Warns:
        UserWarning: Where two axes fit, and the first is taken.
    """
    together = _traced(forward, args, n, len(outputs), everything=True)
    several = lambda y, grown: len(_axes(y.shape, grown, n)) > 1  # noqa: E731
    alone = None
    if together is None or any(several(y, g) for (_, y), g in zip(outputs, together, strict=True)):
        alone = _traced(forward, args, n, len(outputs), everything=False)
    axes = []
    for i, (name, y) in enumerate(outputs):
        traced = [shapes[i] for shapes in (together, alone) if shapes is not None]
        fitting = [_axes(y.shape, g, n) for g in traced] or [_axes(y.shape, None, n)]
        # Of axes that grow with the whole batch, the one that grows with its first array alone.
        chosen = next((found for found in fitting if len(found) == 1), fitting[0])
        axes.append(_the_axis(name, y.shape, chosen, n, traced=bool(traced)))
    return axes


def _the_axis(name: str, shape: tuple[int, ...], axes: list[int], n: int, traced: bool) -> int:
    if len(axes) == 1 and (traced or axes[0] == 0):
        return axes[0]
    how = (
        f"n={n} becomes n={n + 1} with one sample more"
        if traced
        else f"n={n}; a batch of {n + 1} cannot be traced"
    )
    if not axes or axes[0] != 0:
        raise ValueError(
            f"{name} must have one entry per sample along one axis ({how}), but has shape {shape}"
            + (f", where axes {axes} fit" if axes else "")
            + "; return it with the samples first, or leave the layer out with `layers`."
        )
    warnings.warn(
        f"{name} has shape {shape}, where the samples could lie along each of the axes {axes} "
        f"({how}): axis 0 is taken. Choose a number of samples that no other axis has.",
        stacklevel=2,
    )
    return 0


def _axes(shape: tuple[int, ...], grown: tuple[int, ...] | None, n: int) -> list[int]:
    """Axes of n entries that have n + 1 in `grown`; where that is not known, all of n entries."""
    if grown is None:
        grown = tuple(size + 1 for size in shape)
    if len(grown) != len(shape):
        return []
    return [i for i, pair in enumerate(zip(shape, grown, strict=True)) if pair == (n, n + 1)]


def _traced(forward: Any, args: Any, n: int, outputs: int, *, everything: bool) -> Shapes | None:
    """Shapes of the outputs for one sample more; None if the model cannot be traced."""
    leaves, tree = jax.tree.flatten(args)

    def one_more(i: int, x: Any) -> jax.ShapeDtypeStruct:
        grows = i == 0 or (everything and x.ndim > 0 and x.shape[0] == n)
        return jax.ShapeDtypeStruct((n + 1, *x.shape[1:]) if grows else x.shape, x.dtype)

    grown = jax.tree.unflatten(tree, [one_more(i, x) for i, x in enumerate(leaves)])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shapes = [y.shape for y in jax.eval_shape(forward, grown)]
    except Exception:  # whatever a model raises that was not written for this size
        return None
    return shapes if len(shapes) == outputs else None
