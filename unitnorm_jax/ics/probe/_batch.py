"""The probe's batch: its arrays, where their samples lie, and which points are measured."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax.ics.probe._split import Rest, is_array, split

Axes = tuple[int | None, ...]
POINTS = ("samples", "steps")


class Batch(NamedTuple):
    """What is known of a batch without its numbers."""

    rest: Rest
    """The arguments without their arrays."""
    n: int
    """Samples."""
    first: int
    """Which array is the first that has samples."""
    axis: int
    """Of the samples, in that array."""
    growing: tuple[Axes, ...]
    """The axis of the samples in each array, or None; then, where that was a guess from sizes,
    the same for the first array alone."""


def take_in(args: tuple[Any, ...], sample_axis: Any) -> tuple[list[jax.Array], Batch]:
    """Copy the arrays of the arguments, and find their samples.

    Copies, because the caller may reuse a numpy buffer, or donate an array.

    Args:
        args: Positional arguments of the model.
        sample_axis: As `ICSProbe` takes it, for the tuple of arguments.

    Raises:
        ValueError: If there is no sample, or arrays disagree.
    """
    arrays, rest = split(args)
    copies = [jnp.array(a, copy=True) for a in arrays]
    axes = _axes(args, sample_axis)
    fitting = [
        i for i, (a, x) in enumerate(zip(axes, copies, strict=True)) if a is not None and a < x.ndim
    ]
    first = fitting[0] if fitting else None
    n = 0 if first is None else copies[first].shape[axes[first]]  # type: ignore[index]
    if first is None or n < 1:
        where = "the first axis" if sample_axis == 0 else f"axis `sample_axis` (={sample_axis!r})"
        raise ValueError(
            f"`batch` must hold at least one sample along {where} of its first array, but has "
            f"shapes {[a.shape for a in copies]}; give some tens to hundreds."
        )
    axis: Any = axes[first]
    guessed = isinstance(sample_axis, int)
    growing = tuple(
        a if i in fitting and copies[i].shape[a] == n else None  # type: ignore[index]
        for i, a in enumerate(axes)
    )
    if not guessed and growing != axes:
        raise ValueError(
            f"`sample_axis` (={sample_axis!r}) must name an axis of {n} samples in each array, or "
            f"None, but the shapes are {[a.shape for a in copies]}; name the axis of each."
        )
    alone = tuple(a if i == first else None for i, a in enumerate(growing))
    return copies, Batch(rest, n, first, axis, (growing, alone) if guessed else (growing,))


def _axes(args: tuple[Any, ...], sample_axis: Any) -> Axes:
    """One axis for every array of the arguments, from one for all, or a tree of them."""
    none = lambda x: x is None  # noqa: E731
    named = jax.tree.leaves(sample_axis, is_leaf=none)
    if any(
        a is not None and (isinstance(a, bool) or not isinstance(a, int) or a < 0) for a in named
    ):
        raise ValueError(
            f"`sample_axis` (={sample_axis!r}) must be an axis from 0 on, or a tree of them, as "
            "`jax.vmap` takes `in_axes`: for arguments (x, y), for example (1, 0)."
        )
    try:
        if isinstance(sample_axis, int):
            found = jax.tree.map(lambda _: sample_axis, args)
        else:
            spread = lambda axis, part: jax.tree.map(lambda _: axis, part)  # noqa: E731
            found = jax.tree.map(spread, sample_axis, args, is_leaf=none)
    except ValueError as error:
        raise ValueError(
            f"`sample_axis` (={sample_axis!r}) must be one axis, or a tree that begins as the "
            f"arguments do; JAX says: {error}"
        ) from error
    pairs = zip(*(jax.tree.leaves(tree, is_leaf=none) for tree in (found, args)), strict=True)
    return tuple(axis for axis, leaf in pairs if is_array(leaf))


class Selection(NamedTuple):
    """Which points are measured, and what they weigh."""

    points: str
    """"samples": each with all of its numbers; "steps": every step of every sample."""
    steps: int | None
    """Steps of a sample, where they are told apart."""
    step_axis: int
    """Of the steps in the first array."""
    mask: np.ndarray | None
    """Which count: (n,) or (n, steps)."""
    weights: np.ndarray | None
    """Of the samples, (n,)."""


def select(
    shape: tuple[int, ...],
    batch: Batch,
    points: str,
    step_axis: int | None,
    mask: Any,
    weights: Any,
) -> Selection:
    """Check what chooses and weighs the points.

    Args:
        shape: Of the first array with samples.
        batch: From `take_in`.
        points: "samples" or "steps".
        step_axis: Of the first array; None: the first axis that is not that of the samples.
        mask: As `ICSProbe` takes it: laid out as the first two axes of the first array.
        weights: Of the samples.

    Raises:
        ValueError: If one of them is invalid.
    """
    n = batch.n
    if points not in POINTS:
        raise ValueError(f"`points` (={points!r}) must be one of {', '.join(map(repr, POINTS))}.")
    if step_axis is None:
        step_axis = 0 if batch.axis > 0 else 1
    mask = None if mask is None else np.asarray(mask)
    steps = None
    if points == "steps" or (mask is not None and mask.ndim == 2):
        if step_axis == batch.axis or not 0 <= step_axis < len(shape):
            raise ValueError(
                f"`step_axis` (={step_axis}) must be an axis of the batch's first array (=shape "
                f"{shape}) other than that of the samples (={batch.axis}); name it."
            )
        steps = shape[step_axis]
    if mask is not None:
        turned = mask.ndim == 2 and batch.axis > step_axis
        expected = [(n,), *([] if steps is None else [(steps, n) if turned else (n, steps)])]
        if mask.dtype != bool or mask.shape not in expected or not mask.any():
            raise ValueError(
                f"`mask` (={mask.dtype}, shape {mask.shape}) must be of dtype bool and have shape "
                f"{' or '.join(map(str, expected))}, with a True: which samples, or which steps of "
                "each, count."
            )
        mask = mask.T if turned else mask
    if weights is not None:
        weights = np.asarray(weights)
        real = weights.dtype.kind in "fiu"
        if not real or weights.shape != (n,) or not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(
                f"`weights` (={weights.dtype}, shape {weights.shape}) must be a number of at least "
                f"0 for each sample, shape ({n},); leave samples out by a weight of 0."
            )
        if not weights.any():
            raise ValueError("`weights` (=all 0) must weigh at least one sample.")
        if not weights.all():  # What weighs nothing is no point, and may be anything.
            used = weights > 0
            mask = used if mask is None else mask & used.reshape(-1, *[1] * (mask.ndim - 1))
    return Selection(points, steps, step_axis, mask, weights)
