"""Other measures of shift as further columns of a report: see ``ics.measures``."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax.ics import measures
from unitnorm_jax.ics.distances._host import call_on_host
from unitnorm_jax.ics.probe._groups import Block, in_groups, sides

# The columns of each measure that a printed table shows. Rows have more: quantiles, errors.
COLUMNS = {
    "em": (),  # always there
    "moments": ("mean_drift", "std_drift"),
    "channels": ("channel_w1",),
    "mmd": ("mmd",),
    "kmm": ("kmm_sample_size",),
    "gaussian": ("gaussian_w2",),
    "estimation": ("estimation_mean", "estimation_std"),
    "gradient": ("gradient_l2", "gradient_cosine"),
}
MEASURES = tuple(COLUMNS)


def check_measures(
    names: Sequence[str], loss: Any, weighted: bool, inputs: bool = True
) -> tuple[str, ...]:
    """Return the names of the measures besides "em", which is always taken.

    Raises:
        ValueError: If one is unknown, or lacks what it needs.
    """
    if isinstance(names, str):
        raise ValueError(f"`measures` (={names!r}) must be a sequence of names, as ({names!r},).")
    for name in names:
        if name not in MEASURES:
            raise ValueError(
                f"`measures` (={tuple(names)}) has {name!r}; choose from {', '.join(MEASURES)}."
            )
    if ("gradient" in names) != (loss is not None):
        raise ValueError(
            f"`loss` (={loss}) must be given if, and only if, `measures` (={tuple(names)}) has "
            "'gradient': a function loss(variables, *batch) that returns a number."
        )
    if "estimation" in names and not inputs:
        raise ValueError(
            f"`measures` (={tuple(names)}) has 'estimation', which needs the inputs of layers: of "
            "a function take it by ics.measures.estimation_shift."
        )
    if weighted and len(set(names) - {"em", "gradient"}):
        raise ValueError(
            f"`weights` must be None where `measures` (={tuple(names)}) has others than 'em' and "
            "'gradient': these take all samples alike."
        )
    return tuple(name for name in names if name != "em")


def others(
    names: Sequence[str], blocks: Sequence[Block], channels: Sequence[int]
) -> dict[str, jax.Array]:
    """Return the columns of the measures, one number per layer.

    Args:
        names: Of `MEASURES`.
        blocks: Before and after, (k, n, d): k layers each.
        channels: Of each block, how many of its d numbers lie along the last axis.
    """

    def of_group(key: Any, members: list[Block]) -> dict[str, jax.Array]:
        return jax.lax.map(lambda pair: _of_layer(names, key[-1], *pair), sides(members))

    keys = [(x.shape[1:], x.dtype, c) for (x, _), c in zip(blocks, channels, strict=True)]
    return in_groups(blocks, keys, of_group)


def _of_layer(names: Sequence[str], c: int, x: jax.Array, y: jax.Array) -> dict[str, jax.Array]:
    found: dict[str, jax.Array] = {}
    wide = [z.reshape(len(z), -1, c) for z in (x, y)]
    if "moments" in names:
        drift = measures.moment_drift(*wide)
        for name, values in drift._asdict().items():
            found[f"{name}_drift"], found[f"{name}_drift_90"] = measures.summary(values)
    if "channels" in names:
        distances = measures.channel_em_distance(*wide)
        found["channel_w1"], found["channel_w1_90"] = measures.summary(distances)
    if "mmd" in names:
        found["mmd"], found["mmd_error"], _ = measures.mmd(x, y)
    if "kmm" in names:
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        found["kmm_sample_size"] = call_on_host(_sample_size, scalar, x, y)
    if "gaussian" in names:
        found["gaussian_w2"] = measures.gaussian_w2(x, y)
    return found


def _sample_size(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    finite = np.isfinite(x).all() and np.isfinite(y).all()
    size = measures.kernel_mean_matching(x, y).effective_sample_size if finite else np.nan
    return np.asarray(size, np.float32)


def gradient_columns(
    layers: Sequence[str], order: Sequence[str], shift: measures.GradientICS
) -> dict[str, jax.Array]:
    """Return the gradient's columns: NaN for layers without parameters of their own.

    Args:
        layers: The path of each row, without a place along stacked axes.
        order: Of the layers that have parameters.
        shift: Of these.
    """
    place = np.array([order.index(layer) if layer in order else len(order) for layer in layers])
    names = {"gradient_l2": shift.distance, "gradient_cosine": shift.cosine}
    return {
        name: jnp.append(values, jnp.full((1,), jnp.nan, values.dtype))[place]
        for name, values in names.items()
    }
