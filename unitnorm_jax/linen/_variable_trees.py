"""The batch normalizations in trees of variables, of ``flax.linen`` and of ``flax.nnx``."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import core
from flax.linen import meta
from flax.traverse_util import flatten_dict, unflatten_dict

from unitnorm_jax._nnx_objects import is_nnx

Path = tuple[Any, ...]
Select = Callable[[str], Any]

_STATISTICS = {("mean",), ("var",)}
_PARAMETERS = {("scale",), ("bias",), ("alpha",)}


class Flat(NamedTuple):
    """A tree of variables, by path.

    Attributes:
        stats: running statistics, and whatever else stands in ``batch_stats``.
        params: parameters; an empty dictionary in place of a leaf is a module without any.
        rebuild: makes the tree again from other parameters.
    """

    stats: dict[Path, Any]
    params: dict[Path, Any]
    rebuild: Callable[[dict[Path, Any]], Any]


def flattened(variables: Any) -> Flat:
    """Return a tree by path: collections of linen, a state of nnx, or the dictionary of one."""
    if is_nnx(variables, "State"):
        from flax import nnx

        return _by_name(dict(nnx.to_flat_state(variables)), nnx.from_flat_state)
    if not isinstance(variables, Mapping):
        raise ValueError(
            f"`variables` (={type(variables).__name__}) must be collections of variables (a "
            "dictionary), a TrainState, or a state of nnx; of an nnx module give nnx.state(model)."
        )
    if variables and not {"params", "batch_stats"} & variables.keys():
        flat = flatten_dict(variables, keep_empty_nodes=True)
        return _by_name(flat, unflatten_dict)

    def rebuild(params: dict[Path, Any]) -> Any:
        tree = unflatten_dict(params)
        if isinstance(variables.get("params"), core.FrozenDict):
            tree = core.freeze(tree)
        out = {**variables, "params": tree}
        if not params:
            del out["params"]
        return core.freeze(out) if isinstance(variables, core.FrozenDict) else out

    stats = flatten_dict(variables.get("batch_stats", {}))
    params = dict(flatten_dict(variables.get("params", {}), keep_empty_nodes=True))
    return Flat(stats, params, rebuild)


def _by_name(flat: dict[Path, Any], unflatten: Callable[[Any], Any]) -> Flat:
    """Return the tree where statistics and parameters of a layer stand side by side."""
    stats = {path: leaf for path, leaf in flat.items() if path[-1] in ("mean", "var")}
    params = {path: leaf for path, leaf in flat.items() if path not in stats}
    return Flat(stats, params, lambda params: unflatten({**stats, **params}))


def batch_norms(flat: Flat, select: Select | None, what: str) -> dict[Path, bool]:
    """Return the paths of the batch normalizations, and whether each has an alpha.

    A layer is one if ``mean`` and ``var``, of one shape, are all that it keeps in ``batch_stats``,
    and it has no parameters but ``scale``, ``bias`` and ``alpha`` of that shape.

    Args:
        flat: the tree.
        select: which, a predicate of the path, joined by "/"; None: all.
        what: what the caller calls the tree.

    Raises:
        ValueError: there is none.
    """
    found = {}
    for path in flat.stats:
        layer = path[:-1]
        if path[-1] == "mean" and _is_batch_norm(layer, flat):
            found[layer] = (*layer, "alpha") in flat.params
    if not found:
        raise ValueError(
            f"No layer of `{what}` is a batch normalization: none has a `mean` and a `var` of "
            "one shape, and nothing else, in `batch_stats`, and at most `scale` and `bias` in "
            "`params`. Give all that `model.init` returned (or all of `nnx.state(model)`)."
        )
    chosen = {layer: has for layer, has in found.items() if not select or select(name(layer))}
    if not chosen:
        raise ValueError(
            f"`select` leaves out each batch normalization of `{what}`: "
            f"{', '.join(map(name, found))}; select among these."
        )
    return chosen


def _is_batch_norm(layer: Path, flat: Flat) -> bool:
    def held(tree: Mapping[Path, Any]) -> dict[Path, Any]:
        within = {path: leaf for path, leaf in tree.items() if path[: len(layer)] == layer}
        return {path[len(layer) :]: leaf for path, leaf in within.items() if path != layer}

    kept, own = held(flat.stats), held(flat.params)
    if kept.keys() != _STATISTICS or not own.keys() <= _PARAMETERS:
        return False
    shapes = {jnp.shape(unboxed(leaf)) for leaf in (*kept.values(), *own.values())}
    return len(shapes) == 1


def name(path: Path) -> str:
    """Return a path as text; "its top" for the layer that is the model."""
    return "/".join(map(str, path)) or "its top"


def unboxed(leaf: Any) -> Any:
    """Return the array of a leaf: of a box of linen, or of a variable of nnx."""
    if is_nnx(leaf, "Variable"):
        return leaf.get_value()
    return meta.unbox(leaf)


def zeros_like(leaf: Any) -> Any:
    """Return zeros in the shape, the dtype, the sharding and the box of a leaf."""
    value = unboxed(leaf)
    # A structure stays one: what a checkpoint is restored to.
    zeros = value if isinstance(value, jax.ShapeDtypeStruct) else jnp.zeros_like(value)
    if is_nnx(leaf, "Variable"):
        return leaf.replace(zeros)
    return leaf.replace_boxed(zeros) if isinstance(leaf, meta.AxisMetadata) else zeros
