"""Checkpoints of models with ``nn.BatchNorm``, for the same models with ``UnitizedBatchNorm``."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import core
from flax.linen import meta
from flax.traverse_util import flatten_dict, unflatten_dict

Path = tuple[Any, ...]


def add_alpha(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Turn a model's variables with ``nn.BatchNorm`` into those with ``UnitizedBatchNorm``.

    Beside every ``mean`` and ``var`` in ``batch_stats`` goes an ``alpha`` of zeros in ``params``,
    so the model computes what it did before; the names of its modules must stay the same. A layer
    is a batch normalization if these two, of one shape, are all that it keeps in ``batch_stats``,
    and it has no parameters but ``scale`` and ``bias`` of that shape. An alpha has the dtype of
    its layer's scale (or bias), and its box: a ``nn.Partitioned`` scale gives one to alpha.

    Args:
        variables: collections with ``batch_stats`` and, unless no layer has any, ``params``, as
            ``init`` or a checkpoint gives them.

    Returns:
        New collections, as dictionaries or, where frozen ones were given, frozen; the arrays in
        them are those given.

    Raises:
        ValueError: no layer is a batch normalization, or one has an ``alpha`` already.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.linen import UnitizedBatchNorm, add_alpha
        >>> x = jnp.ones((2, 3))
        >>> old = nn.BatchNorm(use_running_average=True).init(jax.random.key(0), x)
        >>> y = UnitizedBatchNorm(use_running_average=True).apply(add_alpha(old), x)
    """
    stats = flatten_dict(variables.get("batch_stats", {}))
    params = dict(flatten_dict(variables.get("params", {}), keep_empty_nodes=True))
    layers = [path[:-1] for path in stats if path[-1] == "mean"]
    layers = [layer for layer in layers if _is_batch_norm(layer, stats, params)]
    if not layers:
        raise ValueError(
            "No layer of `variables` is a batch normalization: none has a `mean` and a `var` of "
            "one shape, and nothing else, in `batch_stats`, and at most `scale` and `bias` in "
            f"`params`. Its collections are {sorted(variables)}; give what `model.init` returned."
        )
    for layer in layers:
        mean = meta.unbox(stats[(*layer, "mean")])
        like = params.get((*layer, "scale"), params.get((*layer, "bias")))
        params.pop(layer, None)  # an empty dictionary, of a layer without parameters
        params[(*layer, "alpha")] = _zeros(jnp.shape(mean), like)
    tree = unflatten_dict(params)
    if isinstance(variables.get("params"), core.FrozenDict):
        tree = core.freeze(tree)
    out = {**variables, "params": tree}
    return core.freeze(out) if isinstance(variables, core.FrozenDict) else out


def _is_batch_norm(layer: Path, stats: Mapping[Path, Any], params: Mapping[Path, Any]) -> bool:
    """Return whether a layer keeps what ``nn.BatchNorm`` keeps; raise if it is unitized already."""

    def held(tree: Mapping[Path, Any]) -> dict[Path, Any]:
        within = {path: leaf for path, leaf in tree.items() if path[: len(layer)] == layer}
        return {path[len(layer) :]: meta.unbox(leaf) for path, leaf in within.items()}

    kept, own = held(stats), held(params)
    own.pop((), None)  # an empty dictionary
    if kept.keys() != {("mean",), ("var",)}:
        return False
    shape = jnp.shape(kept[("mean",)])
    if jnp.shape(kept[("var",)]) != shape or any(jnp.shape(leaf) != shape for leaf in own.values()):
        return False
    if own.keys() <= {("scale",), ("bias",), ("alpha",)} and ("alpha",) in own:
        raise ValueError(
            f"`params` has an `alpha` at {'/'.join(map(str, layer)) or 'its top'} already: it "
            "belongs to a UnitizedBatchNorm, and needs no conversion."
        )
    return own.keys() <= {("scale",), ("bias",)}


def _zeros(shape: tuple[int, ...], like: Any) -> Any:
    """Return zeros in the dtype, the sharding and the box of another parameter, if there is one."""
    if like is None:
        return jnp.zeros(shape, jnp.float32)
    zeros = jnp.zeros_like(meta.unbox(like))
    return like.replace_boxed(zeros) if isinstance(like, meta.AxisMetadata) else zeros
