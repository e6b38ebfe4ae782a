"""One pass through a linen model, in which the wanted layers leave what they return."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import DenyList, lift

from unitnorm_jax._interception import intercepted, new_pass
from unitnorm_jax.ics.probe._capture_errors import explained
from unitnorm_jax.ics.probe._layers import Predicate, keeps_statistics
from unitnorm_jax.ics.probe._written import Writes

INTERMEDIATES = "intermediates"  # the collection that models with scanned layers already carry
_PREFIX = "ics:"  # never the name of a value that the model itself sows
_TRANSFORMS = {"scan", "vmap", "while_loop"}

Key = tuple[tuple[str, ...], str]
"""Path of a module, and name of a method."""


class Model(NamedTuple):
    """A model and how it is applied."""

    module: nn.Module
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    wanted: Predicate
    mode: str
    rngs: dict[str, jax.Array] | None
    method: Any
    leave: Callable[[nn.Module, Sequence[Any], Mapping[str, Any]], Any] | None = None
    """What a call leaves in the place of its output, from its layer and its arguments."""


class Layer(NamedTuple):
    """What was seen of the calls of one method of one module."""

    kind: str
    keeps: bool
    around: list[frozenset[str]]
    """Lifted transforms around each call whose output may get out, in order."""
    looped: list[bool]
    """One entry for each call inside a while loop, whose output does not get out."""
    written: list[bool]
    """Of each call, in order; more than once where a transform traces it more than once."""
    ndims: list[list[int]]
    """Of each array that each call returned, likewise."""


class Pass(NamedTuple):
    """What a pass left."""

    layers: dict[Key, Layer]
    calls: dict[Key, Any]
    """What each call returned; None where it did not get out of a transform."""
    created: Mapping[str, Any]
    """Statistics that the model did not have."""


def run(
    model: Model,
    variables: Mapping[str, Any],
    *,
    collections: Mapping[Key, str] | None = None,
    marked: bool = False,
) -> Pass:
    """Apply a model and return what the wanted layers returned.

    Args:
        model: And how it is applied.
        variables: Its collections; "intermediates" is ignored.
        collections: For some layers the collection to leave their outputs in; default
            "intermediates".
        marked: Whether to leave arrays with as many axes of size 0 in the place of the outputs, so
            that those of another size are what transforms add (`added_axes`).

    Raises:
        ValueError: As `layer_outputs`.
    """
    seen: dict[tuple[str, ...], str] = {}  # every module called: its class
    found: dict[Key, Layer] = {}
    active: list[Key] = []
    writes = Writes()
    others = collections or {}

    def sow(next_fun, args, kwargs, context):
        module, name = context.module, context.method_name
        # A helper that was never bound has no path; Flax's "<lambda>" is around a lifted class.
        if module.scope is None or name in ("setup", "<lambda>"):
            return next_fun(*args, **kwargs)
        key = (module.path, name)
        with writes.call(module) as call:
            if key in active:
                return next_fun(*args, **kwargs)
            active.append(key)
            # Before the call, which may write statistics.
            left = model.leave(module, args, kwargs) if model.leave else None
            try:
                y = next_fun(*args, **kwargs)
            finally:
                active.pop()
        kind = type(module).__name__
        seen.setdefault(module.path, kind)
        if model.wanted(module, name):
            around = frozenset(_transforms())
            entry = found.setdefault(key, Layer(kind, keeps_statistics(module), [], [], [], []))
            if "while_loop" in around:  # where no variable may be made
                entry.looped.append(True)
                return y
            given = jax.tree.map(_marker, y) if marked else y
            given = left if model.leave else given
            module.sow(others.get(key, INTERMEDIATES), _PREFIX + name, given)
            entry.around.append(around)
            entry.written.append(call.written)
            entry.ndims.append([np.ndim(leaf) for leaf in jax.tree.leaves(y)])
        return y

    variables = {k: v for k, v in variables.items() if k != INTERMEDIATES}
    this = new_pass()
    mutable: Any = [INTERMEDIATES, this, *others.values()]
    if model.mode == "train":
        mutable = DenyList(tuple({"params", this} - set(others.values())))

    def apply() -> Any:
        return model.module.apply(
            *(variables, *model.args),
            **model.kwargs,
            rngs=model.rngs,
            method=model.method,
            mutable=mutable,
        )

    try:
        with intercepted(sow):
            _, updated = apply()
    except Exception as error:
        reason = explained(error, model.mode, [name_of(key) for key in found], apply)
        if reason is None:
            raise
        raise ValueError(reason) from error
    if not found:
        raise ValueError(
            "`layers` selects no layer of the model, which called "
            f"{_listing(seen)}; select among these."
        )
    calls = {
        (path, name): _at(
            updated.get(others.get((path, name), INTERMEDIATES), {}), (*path, _PREFIX + name)
        )
        for path, name in found
    }
    created = {"batch_stats": updated["batch_stats"]} if writes.created else {}
    return Pass(found, calls, created)


def visible(model: Model, variables: Mapping[str, Any], first: Pass) -> tuple[Pass, dict[Key, str]]:
    """Return a pass in which layers that stayed inside transforms get out, where they can.

    Transforms that carry no intermediates carry parameters, stacked; outputs can travel with
    these. Where that cannot be traced, the first pass is returned.

    Args:
        model: And how it is applied.
        variables: Its collections.
        first: A pass.

    Returns:
        A pass, and the collections by which it got the outputs out.
    """
    hidden = [key for key, calls in first.calls.items() if calls is None]
    hidden = [key for key in hidden if first.layers[key].around]  # not only in while loops
    others: dict[Key, str] = {}
    for keys in (hidden, *([key] for key in hidden)):  # all at once, or some
        trial = {**others, **dict.fromkeys(keys, "params")}
        found: list[Pass] = []

        def look(variables: Any, trial: Any = trial, found: Any = found) -> None:
            found.append(run(model, variables, collections=trial))

        try:
            jax.eval_shape(look, dict(variables))
        except Exception:  # whatever a transform raises that does not take in variables
            continue
        others |= {key: "params" for key in keys if found[0].calls.get(key) is not None}
        if len(others) == len(hidden):
            break
    return (run(model, variables, collections=others) if others else first), others


def added_axes(model: Model, variables: Mapping[str, Any], others: Mapping[Key, str]) -> Any:
    """Return for each layer, call and array which axes transforms added."""
    found: list[Pass] = []

    def look(variables: Any) -> Any:
        found.append(run(model, variables, collections=others, marked=True))
        return found[0].calls

    shapes = jax.eval_shape(look, dict(variables))
    return {
        key: [
            [tuple(i for i, n in enumerate(leaf.shape) if n > 0) for leaf in jax.tree.leaves(y)]
            for y in calls
        ]
        for key, calls in shapes.items()
        if calls is not None
    }


def name_of(key: Key) -> str:
    """Return the path of a layer, and its method if that is not ``__call__``."""
    path, name = key
    return "/".join(path) + ("" if name == "__call__" else f".{name}")


def _marker(leaf: Any) -> jax.Array:
    """Return an empty array of as many axes."""
    return jnp.zeros((0,) * np.ndim(leaf))


def _transforms() -> Iterator[str]:
    """Lifted transforms of Flax that are at work, from the stack of calls."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == lift.__file__:
            name = code.co_qualname.partition(".")[0]
            if name in _TRANSFORMS:
                yield name
        frame = frame.f_back


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
