"""The outputs of a Flax model's layers, without changing the model."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax import errors
from flax.core import DenyList

from unitnorm_jax.ics.layers import Predicate, keeps_statistics

_COLLECTION = "intermediates"  # the one that models with scanned layers already carry
_PREFIX = "ics:"  # never the name of a value that the model itself sows


class LayerOutput(NamedTuple):
    """One array that one call of one layer returned."""

    layer: str
    """Path of the module, joined with "/"; "" is the model itself. Methods other than
    ``__call__`` follow as ".method"."""
    call: int
    """0 for the first call of the layer, 1 for the second, ..."""
    output: str
    """Where in the output the array lies: "" if it is the output, "[0]" in a tuple."""
    kind: str
    """Name of the module's class."""
    statistics: str
    """"batch": the call wrote its running statistics, so it used the batch's; "running": it has
    some and did not; "none": it has none."""
    value: jax.Array
    """The array, (n, ...)."""


def layer_outputs(
    model: nn.Module,
    variables: Mapping[str, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    wanted: Predicate,
    mode: str = "eval",
    rngs: dict[str, jax.Array] | None = None,
    method: Any = None,
) -> list[LayerOutput]:
    """Apply a model and return what the wanted layers returned, in the order of their calls.

    An interceptor sows each wanted output into "intermediates", so layers inside lifted
    transforms (remat, jit) are reached, and those under scan and vmap if the transform carries
    that collection; there its axis makes part of the output. A ``super().__call__`` inside a
    call is not a call of its own. What the model writes is discarded.

    Args:
      model: Any linen module.
      variables: Its collections; "intermediates" is ignored.
      args: For ``model.apply``.
      kwargs: For ``model.apply``.
      wanted: Predicate from `layer_filter`.
      mode: "train": every collection but "params" may be written. "eval": none may.
      rngs: For ``model.apply``.
      method: For ``model.apply``.

    Returns:
      One entry per call and array in its output; a layer's calls come together.

    Raises:
      ValueError: If nothing is wanted, a wanted output does not get out of a lifted transform,
        is no array of real numbers, or the model writes in mode "eval".

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> from unitnorm_jax.ics.layers import layer_filter
      >>> model = nn.Sequential([nn.Dense(4), nn.LayerNorm()])
      >>> x = jnp.ones((2, 3))
      >>> variables = model.init(jax.random.key(0), x)
      >>> [y.layer for y in layer_outputs(model, variables, (x,), {}, wanted=layer_filter(None))]
      ['layers_1']
    """
    seen: dict[tuple[str, ...], str] = {}  # every module called: its class
    found: dict[tuple[tuple[str, ...], str], tuple[str, bool]] = {}
    active: list[tuple[tuple[str, ...], str]] = []

    def sow(next_fun, args, kwargs, context):
        module, name = context.module, context.method_name
        key = (module.path, name)
        if name == "setup" or key in active:
            return next_fun(*args, **kwargs)
        active.append(key)
        try:
            y = next_fun(*args, **kwargs)
        finally:
            active.pop()
        kind = type(module).__name__
        seen.setdefault(module.path, kind)
        if wanted(module, name):
            module.sow(_COLLECTION, _PREFIX + name, y)
            found.setdefault(key, (kind, keeps_statistics(module)))
        return y

    variables = {k: v for k, v in variables.items() if k != _COLLECTION}
    mutable: Any = DenyList(("params",)) if mode == "train" else [_COLLECTION]
    try:
        with nn.intercept_methods(sow):
            _, updated = model.apply(
                variables, *args, **kwargs, rngs=rngs, method=method, mutable=mutable
            )
    except errors.ModifyScopeVariableError as error:
        raise ValueError(
            'In mode "eval" the model must not write its collections, but it did: ask it for the '
            'running statistics with `eval_kwargs`, for example {"train": False}, or set '
            f'`mode` to "train". Flax says: {error}'
        ) from error
    if not found:
        raise ValueError(
            "`layers` selects no layer of the model, which called "
            f"{_listing(seen)}; select among these."
        )
    outputs = []
    for (path, name), (kind, keeps) in found.items():
        layer = "/".join(path) + ("" if name == "__call__" else f".{name}")
        calls = _at(updated.get(_COLLECTION, {}), (*path, _PREFIX + name))
        if calls is None:
            raise ValueError(
                f"The output of layer {layer!r} stays inside a lifted transform; give the "
                'transform `variable_axes={"intermediates": 0}` (nn.scan, nn.vmap), or leave the '
                "layer out with `layers`."
            )
        statistics = "none"
        if keeps:
            given, now = (_at(v.get("batch_stats", {}), path) for v in (variables, updated))
            written = now is not None and any(now[k] is not given[k] for k in ("mean", "var"))
            statistics = "batch" if written else "running"
        for call, y in enumerate(calls):
            for where, leaf in jax.tree_util.tree_leaves_with_path(y):
                key = jax.tree_util.keystr(where)
                outputs.append(LayerOutput(layer, call, key, kind, statistics, leaf))
    return outputs


def select_outputs(outputs: list[LayerOutput], places: tuple[str, ...] | None) -> list[LayerOutput]:
    """Those that lie at one of the places in their layer's output; None: all.

    Raises:
      ValueError: If there is none.
    """
    if places is None:
        return outputs
    chosen = [output for output in outputs if output.output in places]
    if not chosen:
        found = ", ".join(sorted({repr(output.output) for output in outputs}))
        raise ValueError(
            f"`outputs` (={places}) selects no array: the layers return arrays at {found}; name "
            "some of these."
        )
    return chosen


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return None
        tree = tree[name]
    return tree


def _listing(seen: Mapping[tuple[str, ...], str]) -> str:
    names = [f"{'/'.join(path)!r} ({kind})" for path, kind in seen.items()]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more
