"""Both forward passes and every layer's distance, as compiled functions of two states."""

import copy
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax

from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.distances._samples import METHODS
from unitnorm_jax.ics.measures import _gradient_ics
from unitnorm_jax.ics.probe._batch import select, take_in
from unitnorm_jax.ics.probe._capture import LayerOutput
from unitnorm_jax.ics.probe._devices import pack, placed_by_compiler, replicated, unpack
from unitnorm_jax.ics.probe._estimation import Shifts, estimation_columns
from unitnorm_jax.ics.probe._groups import Block
from unitnorm_jax.ics.probe._layer_info import LayerInfo
from unitnorm_jax.ics.probe._measure_all import measure_all, with_gaps
from unitnorm_jax.ics.probe._others import check_measures, gradient_columns, others
from unitnorm_jax.ics.probe._points import (
    Place,
    indices,
    name_of,
    places,
    points,
    unfit,
    weights_of_points,
)
from unitnorm_jax.ics.probe._report import ICSReport
from unitnorm_jax.ics.probe._stacked import Stacked
from unitnorm_jax.ics.probe._variables import check_match


@runtime_checkable
class Source(Protocol):
    """What a probe looks at: `Linen`, `Nnx` or `Function`."""

    def prepare(self, name: str, state: Any) -> Any:
        """Return a state, checked, as a tree of arrays."""
        ...

    def check_apart(self, before: Any, after: Any) -> None:
        """Raise where two states, as given, are one by mistake."""
        ...

    def outputs(self, state: Any, args: tuple[Any, ...], rngs: Any) -> list[LayerOutput]:
        """Return what the layers return; traced."""
        ...


class Measuring:
    """What `ICSProbe` does once it knows its model."""

    def _start(
        self,
        source: Source,
        args: tuple[Any, ...],
        mode: str,
        rngs: Any,
        method: str | Solver,
        tolerance: float | int,
        strict: bool,
        sample_axis: Any,
        measures: Sequence[str],
        loss: Any = None,
        **selection: Any,
    ) -> None:
        """Copy the batch and check what is common to all models."""
        if not callable(method) and method not in METHODS:
            raise ValueError(f"`method` (={method!r}) must be one of {', '.join(METHODS)}.")
        self._source, self._mode, self._strict = source, mode, strict
        self._method, self._tolerance = method, tolerance
        self._rngs = None if rngs is None else dict(rngs)
        self._args, self._batch = take_in(args, sample_axis)
        self._selection = select(self._args[self._batch.first].shape, self._batch, **selection)
        if self._selection.weights is not None and (callable(method) or method == "scipy"):
            raise ValueError(
                f"`method` (={method!r}) must be 'auto', 'pairing' or 'sinkhorn' where samples "
                "have `weights`."
            )
        weighted = self._selection.weights is not None
        self._others = check_measures(measures, loss, weighted, hasattr(source, "estimation"))
        self._loss = loss
        self._gathered = replicated(self._args)
        # Two programs, so that the forward pass is compiled once for both sides.
        self._forward = jax.jit(self._take)
        self._measure = jax.jit(self._shift, static_argnames=("gathered",))
        self._gradient_now = jax.jit(self._now)
        self._gradient_moved = jax.jit(self._moved)
        self._estimated = jax.jit(self._estimation)
        self._original = self

    def __call__(self, variables_before: Any, variables_after: Any) -> ICSReport:
        """Measure the shift from one state to another.

        Args:
            variables_before: For a linen model its collections, as ``model.apply`` takes them:
                ``{"params": ..., "batch_stats": ...}``; for an nnx model the model or its state;
                what `f` takes, for `ICSProbe.of`; or what `keep` returned.
            variables_after: The same after the update, of the same structure and shapes.

        Returns:
            The report. Its arrays may still be in computation; `ICSReport.layers` and `rows` wait.

        Raises:
            ValueError: If the states do not match, or one was donated; and see `ICSProbe`.
        """
        before = self._source.prepare("variables_before", variables_before)
        after = self._source.prepare("variables_after", variables_after)
        check_match(before, after)
        self._source.check_apart(variables_before, variables_after)
        args, gathered = self._args, self._gathered
        if gathered is None:
            gathered = replicated(jax.tree.leaves((before, after)))
            if gathered is not None:  # A state on a mesh, and a batch on one device.
                args = jax.device_put(args, gathered)
        measure = functools.partial(self._both_sides, gathered=gathered)
        report = placed_by_compiler(measure, before, after, args, self._rngs)
        if self._strict and not isinstance(report.stacked.flags, jax.core.Tracer):
            for layer in report.layers:
                if layer.reason:
                    raise ValueError(f"Layer {layer.layer!r} cannot be measured: {layer.reason}")
        return report

    def keep(self, variables: Any) -> Any:
        """Return a copy of a state for a later call, before a training step donates it.

        What `snapshot` does, in less time where there are many small arrays: they are laid end to
        end (`Packed`), since each array that is made or handed over takes its time.

        Args:
            variables: As in a call.

        Returns:
            What calls take in the place of the variables; its ``unpack()``, where it has one, gives
            them back.
        """
        return pack(self._source.prepare("variables", variables))

    def tree_flatten(self) -> tuple[tuple[Any, Any], Any]:
        """Return the batch and the keys; and the probe they are of, for all the rest."""
        return (self._args, self._rngs), self._original

    @classmethod
    def tree_unflatten(cls, original: Any, arrays: tuple[Any, Any]) -> Any:
        """Return the same probe with other arrays."""
        probe = copy.copy(original)
        probe._args, probe._rngs = arrays
        return probe

    def _both_sides(
        self, before: Any, after: Any, args: Any, rngs: Any, gathered: Any = None
    ) -> ICSReport:
        sides = [self._forward(state, args, rngs) for state in (before, after)]
        gradient = None if self._loss is None else self._gradient(before, after, args)
        estimated = None
        if "estimation" in self._others:
            estimated = self._estimated(after, args, rngs)
        return self._measure(*sides, gradient, estimated, gathered=gathered)

    def _estimation(self, after: Any, arrays: Any, rngs: Any) -> Shifts:
        """Return the estimation shift of each layer, by its path."""
        source: Any = self._source
        return source.estimation(unpack(after), self._batch.rest.joined(arrays), rngs)

    def _gradient(self, before: Any, after: Any, arrays: Any) -> "_Gradient":
        """Return how far the gradient of each layer moved, by the paths of the layers."""
        now = self._gradient_now(before, arrays)
        each = functools.partial(self._gradient_moved, before, after, arrays, now)
        return _Gradient(_gradient_ics.over_layers(each, len(now.order), now), now.order)

    def _now(self, before: Any, arrays: Any) -> "_Gradient":
        """Return the gradient before the update, and the layers."""
        args, before = self._batch.rest.joined(arrays), unpack(before)
        source: Any = self._source  # of a model: functions are given no loss
        order = source.layer_order(before, args, self._rngs)
        loss = source.loss_of(self._loss, before, args)
        return _Gradient(_gradient_ics.gradient(loss, source.parameters(before)), tuple(order))

    def _moved(self, before: Any, after: Any, arrays: Any, now: Any, i: Any) -> jax.Array:
        """Return the sums of one layer."""
        args, before, after = self._batch.rest.joined(arrays), unpack(before), unpack(after)
        source: Any = self._source
        params, updated = map(source.parameters, (before, after))
        loss = source.loss_of(self._loss, before, args)
        owner = _gradient_ics.owners(params, now.order)
        return _gradient_ics.layer_sums(loss, owner, params, updated, now.values, (), i)

    def _take(self, state: Any, args: Any, rngs: Any) -> "_Taken":
        """Return the outputs for a state, and where their points lie."""
        state = unpack(state)
        outputs = self._outputs(state, args, rngs)
        good = [output for output in outputs if not output.reason]
        values = lambda outputs: [o.value for o in outputs if not o.reason]  # noqa: E731
        one_more = lambda args: values(self._outputs(state, args, rngs))  # noqa: E731
        found = iter(places(one_more, args, self._batch, self._selection, good))
        at = tuple(output.reason or next(found) for output in outputs)
        described = tuple(o._replace(value=None if o.reason else o.value.shape) for o in outputs)
        return _Taken(tuple(values(outputs)), described, at)

    def _shift(
        self,
        before: "_Taken",
        after: "_Taken",
        gradient: Any = None,
        estimated: Any = None,
        gathered: Any = None,
    ) -> ICSReport:
        """Return the shift from outputs to outputs."""
        values = zip(before.values, after.values, strict=True)
        infos: list[LayerInfo] = []
        blocks: list[Block] = []
        channels: list[int] = []
        for output, place in zip(before.outputs, before.places, strict=True):
            pair = () if output.reason else next(values)
            if isinstance(place, str):
                if self._strict:
                    raise ValueError(f"{name_of(output)} {place}")
                infos.append(self._info(output, 0, 0, invalid=f"The output {place}"))
                continue
            x, y = (points(_gather(y, gathered), place, self._selection) for y in pair)
            blocks.append((x, y))
            n, d = x.shape[1:]
            last = len(output.value) - 1
            points_at = (*place.stacked, place.samples, place.steps)
            channels.append(d if last in points_at else output.value[last])
            for index in indices(output.value, place.stacked):
                named = output._replace(layer=output.layer + index)
                infos.append(self._info(named, n, d, note=place.note))
        stacked = self._measure_all(blocks)
        columns = others(self._others, blocks, channels) if self._others and blocks else {}
        if gradient is not None:
            paths = [info.layer.split("[")[0] for info in infos if not info.invalid]
            columns |= gradient_columns(paths, gradient.order, gradient.values)
        if estimated is not None:
            rows = [(i.layer, i.call, i.output) for i in infos if not i.invalid]
            columns |= estimation_columns(rows, estimated)
        measured = [not info.invalid for info in infos]
        return ICSReport(tuple(infos), *with_gaps((stacked, columns), measured))

    def _measure_all(self, blocks: list[Block]) -> Stacked:
        weights = weights_of_points(self._selection)
        return measure_all(blocks, self._method, self._tolerance, weights)

    def _outputs(self, state: Any, arrays: Any, rngs: Any) -> list[LayerOutput]:
        """Return the outputs, those that cannot be measured with the reason."""
        args = self._batch.rest.joined(arrays)
        outputs = self._source.outputs(state, args, rngs)
        return [output._replace(reason=unfit(output)) for output in outputs]

    def _info(self, o: LayerOutput, n: int, d: int, note: str = "", invalid: str = "") -> LayerInfo:
        if self._mode == "train" and o.statistics == "running":
            said = 'running statistics in mode "train": give `train_kwargs`, as {"train": True}'
            note = f"{note}; {said}" if note else said
        return LayerInfo(
            *(o.layer, o.call, o.output, o.kind, self._mode, o.statistics, n, d),
            points=self._selection.points,
            note=note,
            invalid=invalid,
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Gradient:
    """Gradients, or how far they moved; and of which layers."""

    values: Any
    order: tuple[str, ...] = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Taken:
    """The outputs of one side."""

    values: tuple[jax.Array, ...]
    """Of those that may be measured."""
    outputs: tuple[LayerOutput, ...] = dataclasses.field(metadata={"static": True})
    """All, with shapes in the place of values."""
    places: tuple[Place | str, ...] = dataclasses.field(metadata={"static": True})
    """Of each output; or why it has none."""


def _gather(value: jax.Array, sharding: Any) -> jax.Array:
    return value if sharding is None else jax.lax.with_sharding_constraint(value, sharding)
