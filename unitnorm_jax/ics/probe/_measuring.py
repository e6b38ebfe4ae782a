"""Both forward passes and every layer's distance, as one compiled function of two states."""

import copy
import functools
from typing import Any, Protocol, runtime_checkable

import jax

from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.distances._samples import METHODS
from unitnorm_jax.ics.probe._batch import select, take_in
from unitnorm_jax.ics.probe._capture import LayerOutput
from unitnorm_jax.ics.probe._devices import pack, placed_by_compiler, replicated, unpack
from unitnorm_jax.ics.probe._layer_info import LayerInfo
from unitnorm_jax.ics.probe._measure import Measure
from unitnorm_jax.ics.probe._measure_all import measure_all, with_gaps
from unitnorm_jax.ics.probe._points import (
    indices,
    name_of,
    places,
    points,
    unfit,
    weights_of_points,
)
from unitnorm_jax.ics.probe._report import ICSReport
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
        self._gathered = replicated(self._args)
        self._measure = jax.jit(self._both_sides, static_argnames=("gathered",))
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
        measure = functools.partial(self._measure, gathered=gathered)
        report = placed_by_compiler(measure, before, after, args, self._rngs)
        if self._strict and not isinstance(report.measures.spread, jax.core.Tracer):
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
        described: list[LayerOutput] = []
        # Traced once for both sides.
        outputs = jax.jit(functools.partial(self._outputs, described), inline=True)
        sides = [outputs(unpack(state), args, rngs) for state in (before, after)]
        all_outputs = list(described)
        good = [o for o in all_outputs if not o.reason]
        one_more = lambda args: self._outputs([], unpack(before), args, rngs)  # noqa: E731
        found = iter(places(one_more, args, self._batch, self._selection, good))
        values = zip(*sides, strict=True)
        infos: list[LayerInfo] = []
        blocks: list[tuple[jax.Array, ...]] = []
        for output in all_outputs:
            place = output.reason or next(found)
            pair = () if output.reason else next(values)
            if isinstance(place, str):
                if self._strict:
                    raise ValueError(f"{name_of(output)} {place}")
                infos.append(self._info(output, 0, 0, invalid=f"The output {place}"))
                continue
            block = tuple(points(_gather(y, gathered), place, self._selection) for y in pair)
            blocks.append(block)
            for index in indices(output.value, place.stacked):
                named = output._replace(layer=output.layer + index)
                n, d = block[0].shape[1:]
                infos.append(self._info(named, n, d, note=place.note))
        measures = self._measure_all(blocks) if blocks else None
        return ICSReport(tuple(infos), with_gaps(measures, [not i.invalid for i in infos]))

    def _measure_all(self, blocks: list[tuple[jax.Array, ...]]) -> Measure:
        weights = weights_of_points(self._selection)
        return measure_all(blocks, self._method, self._tolerance, weights)

    def _outputs(
        self, described: list[LayerOutput], state: Any, arrays: Any, rngs: Any
    ) -> list[jax.Array]:
        """Return the outputs that may be measured; `described` then describes all."""
        args = self._batch.rest.joined(arrays)
        outputs = self._source.outputs(state, args, rngs)
        described[:] = [output._replace(reason=unfit(output)) for output in outputs]
        return [output.value for output in described if not output.reason]

    def _info(self, o: LayerOutput, n: int, d: int, note: str = "", invalid: str = "") -> LayerInfo:
        return LayerInfo(
            *(o.layer, o.call, o.output, o.kind, self._mode, o.statistics, n, d),
            points=self._selection.points,
            note=note,
            invalid=invalid,
        )


def _gather(value: jax.Array, sharding: Any) -> jax.Array:
    return value if sharding is None else jax.lax.with_sharding_constraint(value, sharding)
