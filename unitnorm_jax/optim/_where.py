"""Where alphas are in a tree of parameters."""

from collections.abc import Callable
from typing import Any

import jax

_LAYER = {"alpha", "scale", "bias", "mean", "var"}


def map_alpha(of_alpha: Callable[..., Any], of_rest: Callable[..., Any], *trees: Any) -> Any:
    """Return trees mapped together, by one function where an alpha is, by another elsewhere."""
    alphas = _alphas(trees[0])

    def new(path: Any, *leaves: Any) -> Any:
        return (of_alpha if path in alphas else of_rest)(*leaves)

    return jax.tree_util.tree_map_with_path(new, *trees)


def has_alpha(tree: Any) -> bool:
    """Return whether there is one."""
    return bool(_alphas(tree))


def _alphas(tree: Any) -> set[Any]:
    names = {path: _names(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
    held: dict[tuple[Any, ...], set[Any]] = {}
    for path in names.values():
        for depth in range(len(path)):
            held.setdefault(path[:depth], set()).add(path[depth])
    return {path for path, at in names.items() if at[-1:] == ("alpha",) and held[at[:-1]] <= _LAYER}


def _names(path: Any) -> tuple[Any, ...]:
    """Return the keys of a path without the array within a box or a variable."""
    names = [getattr(key, "key", getattr(key, "name", getattr(key, "idx", None))) for key in path]
    boxed = names[-1:] == ["value"] and isinstance(path[-1], jax.tree_util.GetAttrKey)
    return tuple(names[:-1] if boxed else names)
