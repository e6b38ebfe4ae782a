"""An nnx model as a function from its state and a batch to its layers' outputs."""

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unitnorm_jax._interception import new_pass
from unitnorm_jax.ics.probe._capture import LayerOutput, select_outputs
from unitnorm_jax.ics.probe._devices import Packed
from unitnorm_jax.ics.probe._estimation import Shifts, as_outputs, as_shifts
from unitnorm_jax.ics.probe._mapped import Calling, under_axes
from unitnorm_jax.ics.probe._nnx_sowing import (
    PLACE,
    Calls,
    Leave,
    Output,
    found_at,
    keeps,
    marker,
    shift_of_call,
    sowing_calls,
)
from unitnorm_jax.ics.probe._variables import check_alive

NORMALIZATIONS = (nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm, nnx.GroupNorm, nnx.InstanceNorm)
Wanted = Callable[[str, nnx.Module], bool]


class Nnx:
    """The outputs of an nnx model's modules, by ``nnx.capture``; see `ICSProbe`."""

    def __init__(self, model: nnx.Module, calling: Calling) -> None:
        """Take the structure of the model, and the state of its random streams."""
        self._calling, self._wanted = calling, module_filter(calling.layers)
        self._graph, state = nnx.split(model)
        leaves, self._tree = jax.tree_util.tree_flatten_with_path(state)
        self._names = [jax.tree_util.keystr(path) for path, _ in leaves]
        params = jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
        paths = [path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
        self._params = {
            jax.tree_util.keystr(where): "/".join(map(str, path))
            for (where, _), path in zip(params, paths, strict=True)
        }
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
                jax.eval_shape(lambda s: found.append(self._run(s, args, leave=marker)[1]), state)
                shapes = [leaf.shape for key in values for leaf in jax.tree.leaves(found[0][key])]
                axes = iter([tuple(i for i, n in enumerate(s) if n > 0) for s in shapes])
                outputs = [o if o.reason else o._replace(axes=next(axes)) for o in outputs]
            return select_outputs(outputs, self._calling.outputs)

        return under_axes(self._calling.axis_names, take, state, rngs, args)

    def parameters(self, state: Any) -> dict[str, Any]:
        """Return what gradients are taken with respect to, by path."""
        return {path: state[name] for name, path in self._params.items()}

    def layer_order(self, state: Any, args: tuple[Any, ...], rngs: Any) -> tuple[str, ...]:
        """Return the modules with parameters, in the order of their first calls."""
        del rngs
        owners = dict.fromkeys(path.rpartition("/")[0] for path in self._params.values())
        calls, _ = self._run(state, args, wanted=lambda name, _: name in owners)
        return (*calls, *(owner for owner in owners if owner not in calls))

    def loss_of(self, loss: Any, state: Any, args: tuple[Any, ...]) -> Any:
        """Return the user's loss as a function of the parameters."""

        def of(params: dict[str, Any]) -> Any:
            mine = {name: params[path] for name, path in self._params.items()}
            return loss(self._model({**state, **mine}), *args)

        return of

    def estimation(self, state: Any, args: tuple[Any, ...], rngs: Any) -> Shifts:
        """Return how far running statistics are from those of the modules' inputs."""

        def take(state: Any, rngs: Any, args: tuple[Any, ...]) -> list[LayerOutput]:
            del rngs
            _, values = self._run(state, args, leave=shift_of_call)
            return as_outputs(values)

        return as_shifts(under_axes(self._calling.axis_names, take, state, rngs, args))

    def _model(self, state: Any) -> Any:
        """Return the model with a state, in the probe's mode."""
        leaves = [state[name] for name in self._names]
        model = nnx.merge(self._graph, jax.tree.unflatten(self._tree, leaves))
        nnx.update(model, self._streams)
        _ = model.train() if self._calling.mode == "train" else model.eval()
        return model

    def _run(
        self,
        state: Any,
        args: tuple[Any, ...],
        *,
        leave: Leave = lambda statistics, module, args, kwargs, y: y,
        wanted: Wanted | None = None,
    ) -> tuple[dict[str, Calls], dict[str, Any]]:
        """Return what was seen of the calls, and what they returned; None if that is lost."""
        how, model, wanted = self._calling, self._model(state), wanted or self._wanted
        this, paths, seen = new_pass(), {}, {}
        calls: dict[str, Calls] = {}
        for path, module in list(nnx.iter_modules(model)):
            name = "/".join(map(str, path))
            seen[name] = module
            if wanted(name, module):
                paths[name] = path
                setattr(module, PLACE, (name, this))
        classes = {type(seen[name]) for name in paths}
        forward = how.method if callable(how.method) else _method(how.method)

        def call(model: Any, *args: Any) -> Any:
            return forward(model, *args, **how.kwargs)

        with contextlib.ExitStack() as stack:
            active: set[int] = set()
            for kind in classes:
                stack.enter_context(sowing_calls(kind, calls, active, leave))
            _, captured = nnx.capture(call, Output)(model, *args)
        if not calls:
            raise ValueError(
                "`layers` selects no module that the model calls, which has "
                f"{', '.join(f'{n!r} ({type(m).__name__})' for n, m in list(seen.items())[:20])}; "
                "select among these."
            )
        return calls, {name: found_at(captured, paths[name]) for name in calls}


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
        return lambda _, module: isinstance(module, NORMALIZATIONS) or keeps(module)
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


def _described(calls: dict[str, Calls], values: dict[str, Any]) -> Iterator[LayerOutput]:
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


def _method(name: str | None) -> Callable[..., Any]:
    return lambda model, *args, **kwargs: getattr(model, name or "__call__")(*args, **kwargs)
