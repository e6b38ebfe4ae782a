"""The outputs of a Flax model's layers, without changing the model."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from flax.core import DenyList

from unitnorm_jax._interception import intercepted, new_pass
from unitnorm_jax.ics.probe._capture_errors import explained
from unitnorm_jax.ics.probe._layers import Predicate, keeps_statistics
from unitnorm_jax.ics.probe._written import Writes

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
    """The array; inside ``nn.scan`` and ``nn.vmap`` those of all steps, stacked."""
    stacked: int = 0
    """How many axes of the array such transforms added to what the layer returned."""


class _Found(NamedTuple):
    kind: str
    keeps: bool
    written: list[bool]
    """Of each call, in order; more than once where a transform traces it more than once."""
    ndims: list[list[int]]
    """Of each array that each call returned, likewise."""


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
    that collection: ``variable_axes={"intermediates": 0}``. There the outputs of all steps come
    stacked along its axis (`LayerOutput.stacked`). A ``super().__call__`` inside a
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
        ValueError: If nothing is wanted, a wanted output does not get out of a lifted transform
            (also where only some branches of a conditional call the layer), the model writes in
            mode "eval", or its layers reduce over a mapped axis that is not there.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.ics.probe._layers import layer_filter
        >>> model = nn.Sequential([nn.Dense(4), nn.LayerNorm()])
        >>> x = jnp.ones((2, 3))
        >>> variables = model.init(jax.random.key(0), x)
        >>> [y.layer for y in layer_outputs(model, variables, (x,), {}, wanted=layer_filter(None))]
        ['layers_1']
    """
    capture = functools.partial(_capture, model, args, kwargs, wanted, mode, rngs, method)
    outputs, created = capture(variables)
    if not created or mode == "eval":
        return outputs
    # Flax made the statistics; once they are there, only writing changes them.
    again: list[LayerOutput] = []
    jax.eval_shape(lambda made: again.extend(capture({**variables, **made})[0]), created)
    pairs = zip(outputs, again, strict=True)
    return [output._replace(statistics=other.statistics) for output, other in pairs]


def _capture(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    wanted: Predicate,
    mode: str,
    rngs: dict[str, jax.Array] | None,
    method: Any,
    variables: Mapping[str, Any],
) -> tuple[list[LayerOutput], dict[str, Any]]:
    """Return the outputs, and the statistics where the model had none for some layer."""
    seen: dict[tuple[str, ...], str] = {}  # every module called: its class
    found: dict[tuple[tuple[str, ...], str], _Found] = {}
    active: list[tuple[tuple[str, ...], str]] = []
    writes = Writes()

    def sow(next_fun, args, kwargs, context):
        module, name = context.module, context.method_name
        key = (module.path, name)
        if name in ("setup", "<lambda>"):  # the latter is Flax's, around a lifted class
            return next_fun(*args, **kwargs)
        with writes.call(module) as call:
            if key in active:
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
            entry = found.setdefault(key, _Found(kind, keeps_statistics(module), [], []))
            entry.written.append(call.written)
            entry.ndims.append([np.ndim(leaf) for leaf in jax.tree.leaves(y)])
        return y

    variables = {k: v for k, v in variables.items() if k != _COLLECTION}
    this = new_pass()
    mutable: Any = DenyList(("params", this)) if mode == "train" else [_COLLECTION, this]

    def apply() -> Any:
        return model.apply(variables, *args, **kwargs, rngs=rngs, method=method, mutable=mutable)

    try:
        with intercepted(sow):
            _, updated = apply()
    except Exception as error:
        reason = explained(error, mode, [_name(key) for key in found], apply)
        if reason is None:
            raise
        raise ValueError(reason) from error
    if not found:
        raise ValueError(
            "`layers` selects no layer of the model, which called "
            f"{_listing(seen)}; select among these."
        )
    outputs = []
    for key, entry in found.items():
        (path, name), layer = key, _name(key)
        calls = _at(updated.get(_COLLECTION, {}), (*path, _PREFIX + name))
        if calls is None:
            raise ValueError(
                f"The output of layer {layer!r} stays inside a lifted transform; give the "
                'transform `variable_axes={"intermediates": 0}` (nn.scan, nn.vmap), or leave the '
                "layer out with `layers`."
            )
        for call, y in enumerate(calls):
            written, ndims = (_of_call(x, call, len(calls)) for x in (entry.written, entry.ndims))
            statistics = ("batch" if written else "running") if entry.keeps else "none"
            leaves = jax.tree_util.tree_leaves_with_path(y)
            for (where, leaf), ndim in zip(leaves, ndims, strict=True):
                at, stacked = jax.tree_util.keystr(where), np.ndim(leaf) - ndim
                outputs.append(LayerOutput(layer, call, at, entry.kind, statistics, leaf, stacked))
    made = {"batch_stats": updated["batch_stats"]} if writes.created else {}
    return outputs, made


def _of_call(noted: list[Any], call: int, calls: int) -> Any:
    """Return the notes of a call: scans are traced more than once, repeated jit calls once."""
    last = noted[-calls:]
    return last[min(call, len(last) - 1)]


def _name(key: tuple[tuple[str, ...], str]) -> str:
    path, name = key
    return "/".join(path) + ("" if name == "__call__" else f".{name}")


def select_outputs(outputs: list[LayerOutput], places: tuple[str, ...] | None) -> list[LayerOutput]:
    """Return the outputs that lie at one of the places in their layer's output; None: all.

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
