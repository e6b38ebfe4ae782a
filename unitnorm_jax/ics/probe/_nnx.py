"""An nnx model as a function from its state and a batch to its layers' outputs."""

import contextlib
import fnmatch
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unitnorm_jax._interception import new_pass
from unitnorm_jax.ics.probe._capture import LayerOutput, select_outputs
from unitnorm_jax.ics.probe._devices import Packed
from unitnorm_jax.ics.probe._estimation import Shifts, as_outputs, as_shifts, shift_at
from unitnorm_jax.ics.probe._mapped import Calling, under_axes
from unitnorm_jax.ics.probe._variables import check_alive

NORMALIZATIONS = (nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm, nnx.GroupNorm, nnx.InstanceNorm)
_PLACE = "_ics_place"  # on copies of the model only
_NAME = "ics"

Wanted = Callable[[str, nnx.Module], bool]
Leave = Callable[[Any, Any, Any, Any, Any], Any]
"""What a call leaves, from the statistics before it, its module, arguments and output."""


class _Output(nnx.Intermediate):
    """Never the type of what the model itself sows."""


class _Calls(NamedTuple):
    """What was seen of the calls of one module."""

    kind: str
    keeps: bool
    written: list[bool]
    ndims: list[list[int]]


class Nnx:
    """The outputs of an nnx model's modules, by ``nnx.capture``; see `ICSProbe`."""

    def __init__(self, model: nnx.Module, calling: Calling) -> None:
        """Take the structure of the model, and the state of its random streams."""
        self._calling, self._wanted = calling, module_filter(calling.layers)
        self._graph, state = nnx.split(model)
        leaves, self._tree = jax.tree_util.tree_flatten_with_path(state)
        self._names = [jax.tree_util.keystr(path) for path, _ in leaves]
        # Both sides draw the same noise: streams have gone on in between.
        streams = nnx.state(model, nnx.RngState)
        self._streams = jax.tree.map(lambda x: jnp.array(x, copy=True), streams)

    def prepare(self, name: str, state: Any) -> Any:
        """Return the arrays of a model, or of its state, by their paths.

        Raises:
            ValueError: If it is neither, or one of another model.
        """
        if isinstance(state, Packed):
            return state
        if isinstance(state, dict) and state.keys() == set(self._names):  # what was kept
            check_alive(name, state)
            return state
        if isinstance(state, nnx.Module):
            _, state = nnx.split(state)
        leaves = jax.tree_util.tree_leaves_with_path(state)
        arrays = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        if not isinstance(state, nnx.State | Mapping) or arrays.keys() != set(self._names):
            other = sorted(arrays.keys() ^ set(self._names))[:3]
            raise ValueError(
                f"`{name}` (={type(state).__name__}) must be the model that the probe was given, "
                f"after any updates, or all of its state, as nnx.state returns it; they differ at "
                f"{', '.join(other) or 'its type'}."
            )
        check_alive(name, arrays)
        return arrays

    def check_apart(self, before: Any, after: Any) -> None:
        """Two states, not one: nnx changes a model in place, and its state with it.

        Raises:
            ValueError: If both are one model, or share its Variables.
        """

        def variables(state: Any) -> list[Any]:
            state = nnx.state(state) if isinstance(state, nnx.Module) else state
            is_variable = lambda x: isinstance(x, nnx.Variable)  # noqa: E731
            found = jax.tree.leaves(state, is_leaf=is_variable)
            return [x for x in found if is_variable(x)]

        pairs = list(zip(variables(before), variables(after), strict=False))
        if pairs and all(a is b for a, b in pairs):
            raise ValueError(
                "`variables_before` and `variables_after` (=one model) must be two states, but nnx "
                "changes a model in place: keep `probe.keep(model)` before the update, or use "
                "`ICSRecord`."
            )

    def outputs(self, state: Any, args: tuple[Any, ...], rngs: Any) -> list[LayerOutput]:
        """Return what the wanted modules return.

        Args:
            state: From `prepare`.
            args: Positional arguments of the model.
            rngs: None: an nnx model has its own.
        """

        def take(state: Any, rngs: Any, args: tuple[Any, ...]) -> list[LayerOutput]:
            del rngs
            calls, values = self._run(state, args)
            outputs = list(_described(calls, values))
            if any(output.stacked for output in outputs):
                found: list[Any] = []
                jax.eval_shape(lambda s: found.append(self._run(s, args, leave=_marker)[1]), state)
                shapes = [leaf.shape for key in values for leaf in jax.tree.leaves(found[0][key])]
                axes = iter([tuple(i for i, n in enumerate(s) if n > 0) for s in shapes])
                outputs = [o if o.reason else o._replace(axes=next(axes)) for o in outputs]
            return select_outputs(outputs, self._calling.outputs)

        return under_axes(self._calling.axis_names, take, state, rngs, args)

    def estimation(self, state: Any, args: tuple[Any, ...], rngs: Any) -> Shifts:
        """Return how far running statistics are from those of the modules' inputs."""

        def take(state: Any, rngs: Any, args: tuple[Any, ...]) -> list[LayerOutput]:
            del rngs
            _, values = self._run(state, args, leave=_shift_at)
            return as_outputs(values)

        return as_shifts(under_axes(self._calling.axis_names, take, state, rngs, args))

    def _run(
        self,
        state: Any,
        args: tuple[Any, ...],
        *,
        leave: Leave = lambda statistics, module, args, kwargs, y: y,
    ) -> tuple[dict[str, _Calls], dict[str, Any]]:
        """Return what was seen of the calls, and what they returned; None if that is lost."""
        how, leaves = self._calling, [state[name] for name in self._names]
        model = nnx.merge(self._graph, jax.tree.unflatten(self._tree, leaves))
        nnx.update(model, self._streams)
        _ = model.train() if how.mode == "train" else model.eval()
        this, paths, seen = new_pass(), {}, {}
        calls: dict[str, _Calls] = {}
        for path, module in list(nnx.iter_modules(model)):
            name = "/".join(map(str, path))
            seen[name] = module
            if self._wanted(name, module):
                paths[name] = path
                setattr(module, _PLACE, (name, this))
        classes = {type(seen[name]) for name in paths}
        forward = how.method if callable(how.method) else _method(how.method)

        def call(model: Any, *args: Any) -> Any:
            return forward(model, *args, **how.kwargs)

        with contextlib.ExitStack() as stack:
            active: set[int] = set()
            for kind in classes:
                stack.enter_context(_sowing(kind, calls, active, leave))
            _, captured = nnx.capture(call, _Output)(model, *args)
        if not calls:
            raise ValueError(
                "`layers` selects no module that the model calls, which has "
                f"{', '.join(f'{n!r} ({type(m).__name__})' for n, m in list(seen.items())[:20])}; "
                "select among these."
            )
        return calls, {name: _found(captured, paths[name]) for name in calls}


def module_filter(layers: Any) -> Wanted:
    """Turn what a user gives for `layers` into a predicate of a path and an nnx module.

    Args:
        layers: As `layer_filter` takes it, with classes of nnx: None for every normalization; a
            class, a pattern of paths, a predicate ``(module, "__call__") -> bool``, or a tuple of
            these.

    Raises:
        ValueError: If it is none of these.
    """
    if layers is None:
        return lambda _, module: isinstance(module, NORMALIZATIONS) or _keeps(module)
    if isinstance(layers, type) and issubclass(layers, nnx.Module):
        return lambda _, module: isinstance(module, layers)
    if isinstance(layers, str):
        return lambda name, _: fnmatch.fnmatchcase(name, layers)
    if isinstance(layers, tuple | list) and layers:
        parts = [module_filter(part) for part in layers]
        return lambda name, module: any(part(name, module) for part in parts)
    if callable(layers) and not isinstance(layers, type | nnx.Module):
        return lambda _, module: bool(layers(module, "__call__"))
    raise ValueError(
        f"`layers` (={layers!r}) must be a class of flax.nnx.Module, a pattern of paths, a "
        "predicate (module, method name) -> bool, or a nonempty tuple of these; None selects every "
        "normalization layer."
    )


def _described(calls: dict[str, _Calls], values: dict[str, Any]) -> Iterator[LayerOutput]:
    for name, seen in calls.items():
        if values[name] is None:
            unknown = "unknown" if seen.keeps else "none"
            yield LayerOutput(name, 0, "", seen.kind, unknown, None, reason=_HIDDEN)
            continue
        for number, y in enumerate(values[name]):
            place = min(number - len(values[name]), -1)
            at = max(place, -len(seen.written))
            statistics = "none"
            if seen.keeps:
                statistics = "batch" if seen.written[at] else "running"
            leaves = jax.tree_util.tree_leaves_with_path(y)
            for (where, leaf), ndim in zip(leaves, seen.ndims[at], strict=True):
                key, stacked = jax.tree_util.keystr(where), np.ndim(leaf) - ndim
                yield LayerOutput(name, number, key, seen.kind, statistics, leaf, stacked)


_HIDDEN = (
    "stays inside a transform, which must hand the module's new state out (nnx.scan and nnx.vmap "
    "do, with an axis for it); or leave the layer out with `layers`."
)


@contextlib.contextmanager
def _sowing(kind: type, calls: dict[str, _Calls], active: set[int], leave: Leave) -> Iterator[None]:
    """While it is open, wanted modules of a class sow what their calls return."""
    method: Any = kind.__call__
    own = "__call__" in vars(kind)

    @functools.wraps(method)
    def sowing(self: Any, *args: Any, **kwargs: Any) -> Any:
        place = vars(self).get(_PLACE)
        if place is None or id(self) in active:  # the latter: super().__call__
            return method(self, *args, **kwargs)
        before = _statistics(self)
        active.add(id(self))
        try:
            y = method(self, *args, **kwargs)
        finally:
            active.discard(id(self))
        written = any(a is not b for a, b in zip(before, _statistics(self), strict=True))
        seen = calls.setdefault(place[0], _Calls(type(self).__name__, _keeps(self), [], []))
        seen.written.append(written)
        seen.ndims.append([np.ndim(leaf) for leaf in jax.tree.leaves(y)])
        self.sow(_Output, _NAME, leave(before, self, args, kwargs, y))
        return y

    kind.__call__ = sowing  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own:
            kind.__call__ = method  # type: ignore[method-assign]
        else:
            del kind.__call__


def _marker(statistics: Any, module: Any, args: Any, kwargs: Any, y: Any) -> Any:
    return jax.tree.map(lambda z: jnp.zeros((0,) * np.ndim(z)), y)


def _shift_at(statistics: Any, module: Any, args: Any, kwargs: Any, y: Any) -> Any:
    del y
    mean, var = statistics or (None, None)
    return shift_at(mean, var, getattr(module, "axis", -1), args, kwargs)


def _keeps(module: Any) -> bool:
    return all(isinstance(getattr(module, n, None), nnx.BatchStat) for n in ("mean", "var"))


def _statistics(module: Any) -> list[Any]:
    return [getattr(module, name).get_value() for name in ("mean", "var")] if _keeps(module) else []


def _method(name: str | None) -> Callable[..., Any]:
    return lambda model, *args, **kwargs: getattr(model, name or "__call__")(*args, **kwargs)


def _found(captured: Any, path: tuple[Any, ...]) -> Any:
    for part in (*path, _NAME):
        if part not in captured:
            return None
        captured = captured[part]
    return captured.get_value()
