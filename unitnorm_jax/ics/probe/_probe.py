"""Measure the shift of a Flax model's layers between two states of its variables."""

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.distances._samples import METHODS
from unitnorm_jax.ics.probe import _capture
from unitnorm_jax.ics.probe._devices import pack, placed_by_compiler, replicated, unpack
from unitnorm_jax.ics.probe._layer_info import LayerInfo
from unitnorm_jax.ics.probe._layers import layer_filter
from unitnorm_jax.ics.probe._measure import Measure
from unitnorm_jax.ics.probe._measure_all import measure_all
from unitnorm_jax.ics.probe._report import ICSReport
from unitnorm_jax.ics.probe._sample_axis import sample_axes
from unitnorm_jax.ics.probe._variables import check_match, collections


@jax.tree_util.register_pytree_node_class
class ICSProbe:
    """Measure, for each layer, W1 between its outputs before and after an update.

    ``ICS of a layer = W1({f_before(x_i)}, {f_after(x_i)})`` over the n samples x_i of the probe
    batch, the same on both sides, with a certificate (`em_distance`) and closed-form bounds.

    Works with any linen model as it is: outputs are taken by an interceptor (`layer_outputs`).
    The axis of the samples in an output, wherever it lies, is the one that grows when the model is
    traced, without computing, for a batch of one sample more. All other axes make up the dimension:
    layers under ``nn.scan`` and ``nn.vmap``, and steps of a sequence, are measured together, as one
    output (the transform must carry them out: ``variable_axes={"intermediates": 0}``).

    All of it, both forward passes and every layer's distance, is one function under one
    ``jax.jit``, compiled at the first call and not again while the variables keep their shapes,
    dtypes and shardings. It writes nothing: what the model stores (running statistics) is
    discarded, and nothing is donated. It keeps its own copy of the batch and no variables.

    It is a pytree, of that copy and the keys: a jitted function that measures and does more can
    take it as an argument. One that closes over it has the batch in its program.

    A state that the training step was given to donate is gone afterwards: `keep` it before the
    step, as `ICSRecord` does.

    Devices. A batch sharded over the samples is processed where it lies; the wanted outputs are
    then gathered, and the distances are computed alike on every device, so they are those of one
    device up to rounding in the forward pass (batch statistics sum in another order). For a model
    whose layers average over a mapped axis, give its name as `axis_name`: the whole probe batch is
    then one member of that axis, which has size 1.

    Numbers that are not finite do not raise: a layer's distance, spread and bounds are then NaN
    and its `LayerICS.reason` says on which side, for a probe must not end a training run.

    Args:
        model: Any linen module.
        batch: What the model is called with: an array (n, ...), a pytree given as the one argument,
            or a tuple: the positional arguments. The first axis of its first array is that of the n
            samples; let a model that wants another axis first turn its input.
        layers: Which: None, every normalization layer; or a module class, a pattern of paths, a
            predicate, or a tuple of these; see `layer_filter`.
        outputs: Where a layer returns several arrays, which of them to measure, by their place
            (`LayerICS.output`): ("", "[0]") are single arrays and the first of tuples. None: all.
        mode: "eval", the default: the model is called with `eval_kwargs` and may write nothing, so
            layers use their running statistics. "train": with `train_kwargs`, and layers use those
            of the probe batch. `LayerICS.statistics` states what each layer did use.
        train_kwargs: Keyword arguments of the model in mode "train", for example ``{"train":
            True}``; constants of the compiled function.
        eval_kwargs: The same in mode "eval".
        rngs: Keys by name, for example ``{"dropout": key}``: the same on both sides.
        apply_method: The method to apply, default ``__call__``; as ``method`` in ``model.apply``.
        axis_name: Of the mapped axis that the model's layers reduce over, if any; or a tuple of
            names.
        method: How distances are computed, see `em_distance`. The default solves on the host, by a
            callback, only where the bounds leave a gap.
        tolerance: Of the distances, see `em_distance`.

    Raises:
        ValueError: If an argument is invalid, or the batch is empty; and, at the first call, as
            `layer_outputs`, or if a wanted output is not n samples of real numbers.

    Warns:
        UserWarning: At the first call, where two axes of an output could be that of the samples.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> model = nn.Sequential([nn.Dense(4), nn.LayerNorm(), nn.Dense(2)])
        >>> x = jax.random.normal(jax.random.key(0), (8, 3))
        >>> before = model.init(jax.random.key(1), x)
        >>> after = jax.tree.map(lambda p: p + 0.25, before)
        >>> report = ICSProbe(model, x)(before, after)
        >>> [(layer.layer, layer.n, layer.d) for layer in report.layers]
        [('layers_1', 8, 4)]

    References:
        Y. Huang, Y. Yu, An internal covariate shift bounding algorithm for deep neural networks by
        unitizing layers' outputs, 2020 (the measure).
    """

    def __init__(
        self,
        model: Any,
        batch: Any,
        layers: Any = None,
        *,
        outputs: tuple[str, ...] | None = None,
        mode: str = "eval",
        train_kwargs: Mapping[str, Any] | None = None,
        eval_kwargs: Mapping[str, Any] | None = None,
        rngs: Mapping[str, jax.Array] | None = None,
        apply_method: str | Callable[..., Any] | None = None,
        axis_name: str | tuple[str, ...] | None = None,
        method: str | Solver = "auto",
        tolerance: float | int = 1e-5,
    ) -> None:
        """Check the arguments and copy the batch; compile nothing."""
        if not isinstance(model, nn.Module):
            raise ValueError(
                f"`model` (={type(model).__name__}) must be an instance of flax.linen.Module; "
                "for other models, give their outputs to `measure`."
            )
        if mode not in ("train", "eval"):
            raise ValueError(f"`mode` (={mode!r}) must be 'train' or 'eval'.")
        if not callable(method) and method not in METHODS:
            raise ValueError(f"`method` (={method!r}) must be one of {', '.join(METHODS)}.")
        self._model, self._mode, self._wanted = model, mode, layer_filter(layers)
        self._places: tuple[str, ...] | None = outputs
        self._kwargs = dict((train_kwargs if mode == "train" else eval_kwargs) or {})
        self._apply_method = apply_method
        names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
        self._axis_names = tuple(name for name in names if name is not None)
        self._method, self._tolerance = method, tolerance
        # Copies: the caller may reuse a numpy buffer, or donate an array.
        args = batch if isinstance(batch, tuple) else (batch,)
        self._args = jax.tree.map(lambda a: jnp.array(a, copy=True), args)
        self._rngs = None if rngs is None else dict(rngs)
        arrays = jax.tree.leaves(self._args)
        if not arrays or arrays[0].ndim < 1 or arrays[0].shape[0] < 1:
            raise ValueError(
                "`batch` must hold at least one sample along the first axis of its first array, "
                f"but has shapes {[a.shape for a in arrays]}; give some tens to hundreds."
            )
        self._n = arrays[0].shape[0]
        self._gathered = replicated(arrays)
        self._measure = jax.jit(self._both_sides)
        self._original = self

    def __call__(self, variables_before: Any, variables_after: Any) -> ICSReport:
        """Measure the shift from one state to another.

        Args:
            variables_before: Collections, as ``model.apply`` takes them: ``{"params": ...,
                "batch_stats": ...}``; or what `keep` returned.
            variables_after: The same after the update, of the same structure and shapes.

        Returns:
            The report. Its arrays may still be in computation; `ICSReport.layers` and `rows` wait.

        Raises:
            ValueError: If the states do not match, or one was donated; and see `ICSProbe`.
        """
        before = collections("variables_before", variables_before)
        after = collections("variables_after", variables_after)
        check_match(before, after)
        return placed_by_compiler(self._measure, before, after, self._args, self._rngs)

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
        return pack(collections("variables", variables))

    def tree_flatten(self) -> tuple[tuple[Any, Any], "ICSProbe"]:
        """Return the batch and the keys; and the probe they are of, for all the rest."""
        return (self._args, self._rngs), self._original

    @classmethod
    def tree_unflatten(cls, original: "ICSProbe", arrays: tuple[Any, Any]) -> "ICSProbe":
        """Return the same probe with other arrays."""
        probe = copy.copy(original)
        probe._args, probe._rngs = arrays
        return probe

    def _both_sides(self, before: Any, after: Any, args: Any, rngs: Any) -> ICSReport:
        described: list[_capture.LayerOutput] = []
        # Traced once for both sides.
        outputs = jax.jit(functools.partial(self._outputs, described), inline=True)
        sides = [outputs(unpack(variables), args, rngs) for variables in (before, after)]
        one_more = lambda args: self._outputs([], unpack(before), args, rngs)  # noqa: E731
        named = list(zip(map(_name, described), sides[0], strict=True))
        axes = sample_axes(one_more, args, self._n, named)
        pairs = [
            tuple(jnp.moveaxis(self._gather(y), axis, 0).reshape(self._n, -1) for y in pair)
            for axis, *pair in zip(axes, *sides, strict=True)
        ]
        infos = [
            LayerInfo(*output[:4], self._mode, output.statistics, *x.shape)
            for output, (x, _) in zip(described, pairs, strict=True)
        ]
        return ICSReport(tuple(infos), self._measure_all(pairs))

    def _measure_all(self, pairs: list[tuple[jax.Array, ...]]) -> Measure:
        return measure_all(pairs, self._method, self._tolerance)

    def _outputs(
        self, described: list[_capture.LayerOutput], variables: Any, args: Any, rngs: Any
    ) -> list[jax.Array]:
        """Return what the wanted layers return, which `described` then describes."""

        def forward(variables: Any, args: Any, rngs: Any) -> list[jax.Array]:
            outputs = _capture.layer_outputs(
                self._model,
                variables,
                args,
                self._kwargs,
                wanted=self._wanted,
                mode=self._mode,
                rngs=rngs,
                method=self._apply_method,
            )
            described[:] = _capture.select_outputs(outputs, self._places)
            for output in described:
                _check_numbers(output)
            return [output.value for output in described]

        for name in self._axis_names:
            forward = jax.vmap(forward, None, axis_name=name, axis_size=1)
        values = forward(variables, args, rngs)
        return [value.reshape(value.shape[len(self._axis_names) :]) for value in values]

    def _gather(self, value: jax.Array) -> jax.Array:
        if self._gathered is None:
            return value
        return jax.lax.with_sharding_constraint(value, self._gathered)


def _name(output: _capture.LayerOutput) -> str:
    return f"Output {output.output or 'of'} layer {output.layer!r} ({output.kind})"


def _check_numbers(output: _capture.LayerOutput) -> None:
    y = output.value
    if not isinstance(y, jax.Array) or not (
        jnp.issubdtype(y.dtype, jnp.floating) or jnp.issubdtype(y.dtype, jnp.integer)
    ):
        raise ValueError(
            f"{_name(output)} must hold real numbers, but is {getattr(y, 'dtype', type(y))}; "
            "leave the layer out with `layers`."
        )
    if y.size == 0:
        raise ValueError(
            f"{_name(output)} must hold numbers, but has shape {y.shape}; leave the layer out with "
            "`layers`."
        )
