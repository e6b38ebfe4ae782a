"""The variables that a probe is given: which it takes, and errors that say what to do."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.core import FrozenDict, unfreeze

from unitnorm_jax.ics.probe._devices import Packed, unpack


def collections(name: str, variables: Any) -> Any:
    """Return the collections that a model is applied with, or a `Packed` as it is.

    Raises:
        ValueError: If they are no collections, or hold arrays that were donated.
    """
    if isinstance(variables, Packed):
        return variables
    if not isinstance(variables, Mapping) or not variables:
        raise ValueError(
            f"`{name}` (={type(variables).__name__}) must be the model's collections, as "
            '`model.apply` takes them; give {"params": ..., "batch_stats": ...}.'
        )
    check_alive(name, variables)
    if any(isinstance(v, FrozenDict) for v in (variables, *variables.values())):
        variables = unfreeze(dict(variables))
    return {k: v for k, v in variables.items() if k != "intermediates"}


def check_alive(name: str, state: Any) -> None:
    """No array was donated.

    Raises:
        ValueError: If one was.
    """
    for leaf in jax.tree.leaves(state):
        is_array = isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer)
        if is_array and leaf.is_deleted():
            raise ValueError(
                f"`{name}` holds deleted arrays: the training step was given them to donate. "
                "Keep `probe.keep(variables)` before the step, or use `ICSRecord`."
            )


def check_match(before: Any, after: Any) -> None:
    """Both of the same model, by the structure and the shapes of their arrays.

    Raises:
        ValueError: If they are not.
    """
    if _layout(before) == _layout(after):
        return
    shapes = [
        {jax.tree_util.keystr(k): np.shape(v) for k, v in jax.tree_util.tree_leaves_with_path(t)}
        for t in (jax.eval_shape(unpack, tree) for tree in (before, after))
    ]
    for key in shapes[0].keys() | shapes[1].keys():
        old, new = (s.get(key, "missing") for s in shapes)
        if old != new:
            raise ValueError(
                "The variables before and after must be of the same model, but at "
                f"{key} they are {old} before and {new} after; probe two states of one model."
            )


def _layout(variables: Any) -> tuple[Any, list[tuple[int, ...]]]:
    if isinstance(variables, Packed):
        return variables.tree, [shape for _, shape in variables.shapes]
    leaves, tree = jax.tree.flatten(variables)
    return tree, [np.shape(x) for x in leaves]
