"""States of training with other parameters: what of the optimizer's state stays."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def is_train_state(tree: Any) -> bool:
    """Return whether a value is a ``TrainState``, of Flax or made alike."""
    return all(hasattr(tree, name) for name in ("tx", "params", "opt_state", "replace"))


def variables_of(state: Any) -> dict[str, Any]:
    """Return the parameters and the running statistics of a state.

    Raises:
        ValueError: it has no statistics.
    """
    stats = getattr(state, "batch_stats", None)
    if not isinstance(stats, Mapping) or not stats:
        raise ValueError(
            f"`variables` (={type(state).__name__}) must have `batch_stats`, which tell where a "
            "batch normalization is: declare such a field in a subclass of TrainState, and fill it."
        )
    return {"params": state.params, "batch_stats": stats}


def with_params(state: Any, params: Any) -> Any:
    """Return a state with other parameters; those of the old names keep the optimizer's state.

    Args:
        state: the state.
        params: parameters that differ from those of the state in alphas that come or go.

    Raises:
        ValueError: ``tx`` does not take the parameters, or its state differs in more than alphas.
    """
    try:
        fresh = state.tx.init(params)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            "`tx` does not take the parameters with their alphas changed: masks and labels must be "
            f"functions of the parameters, not trees. Its error: {error}"
        ) from error
    old = dict(jax.tree_util.tree_leaves_with_path(state.opt_state))
    new = dict(jax.tree_util.tree_leaves_with_path(fresh))
    for path in sorted(old.keys() ^ new.keys(), key=jax.tree_util.keystr):
        if not _is_of_alpha(path):
            raise _unlike(path, "there is none in one of the two")
    for path in sorted(old.keys() & new.keys(), key=jax.tree_util.keystr):
        if jnp.shape(old[path]) != jnp.shape(new[path]):
            raise _unlike(path, f"it has shape {jnp.shape(old[path])}, not {jnp.shape(new[path])}")
    merged = jax.tree_util.tree_map_with_path(lambda path, leaf: old.get(path, leaf), fresh)
    return state.replace(params=params, opt_state=merged)


def _is_of_alpha(path: Any) -> bool:
    return any(getattr(key, "key", getattr(key, "name", None)) == "alpha" for key in path)


def _unlike(path: Any, how: str) -> ValueError:
    return ValueError(
        f"`opt_state`{jax.tree_util.keystr(path)} is not what `tx.init` gives: {how}. The state "
        "must be one of this `tx`, and keep a leaf per parameter (optax.flatten does not)."
    )
