"""The outputs of a Flax model's layers, without changing the model."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from unitnorm_jax.ics.probe._layers import Predicate
from unitnorm_jax.ics.probe._sowing import Model, Pass, added_axes, name_of, run, visible

_HIDDEN = (
    'stays inside a lifted transform; give the transform `variable_axes={"intermediates": 0}` '
    "(nn.scan, nn.vmap, nn.RNN), or leave the layer out with `layers`."
)
_WHILE = (
    "stays inside nn.while_loop: how often it runs is not known before, so its steps cannot be "
    "stacked; use nn.scan with a length, or leave the layer out with `layers`."
)


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
    some and did not; "none": it has none; "unknown": there is no array."""
    value: Any
    """The array, or what stands in its place; inside ``nn.scan`` and ``nn.vmap`` those of all
    steps, stacked."""
    stacked: int = 0
    """How many axes of the array such transforms added to what the layer returned."""
    axes: tuple[int, ...] = ()
    """Which axes these are."""
    reason: str = ""
    """Why there is no array; "" where there is one."""


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
    strict: bool = True,
) -> list[LayerOutput]:
    """Apply a model and return what the wanted layers returned, in the order of their calls.

    An interceptor sows each wanted output into "intermediates", so layers inside lifted
    transforms (remat, jit) are reached, and those under scan, vmap and RNN if the transform carries
    that collection, ``variable_axes={"intermediates": 0}``, or stacks parameters, beside which the
    outputs then travel. There the outputs of all steps come stacked (`LayerOutput.axes`). A
    ``super().__call__`` inside a call is not a call of its own. What the model writes is discarded.

    Args:
        model: Any linen module.
        variables: Its collections; "intermediates" is ignored.
        args: For ``model.apply``.
        kwargs: For ``model.apply``.
        wanted: Predicate from `layer_filter`.
        mode: "train": every collection but "params" may be written. "eval": none may.
        rngs: For ``model.apply``.
        method: For ``model.apply``.
        strict: Whether an output that does not get out of a transform raises. Else its entry has
            a `LayerOutput.reason` and no value.

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
    how = Model(model, args, kwargs, wanted, mode, rngs, method)
    taken = run(how, variables)
    others: dict[Any, str] = {}
    if any(calls is None for calls in taken.calls.values()):
        taken, others = visible(how, variables, taken)
    outputs = _described(taken)
    if strict:
        for output in outputs:
            if output.reason:
                raise ValueError(f"The output of layer {output.layer!r} {output.reason}")
    if any(output.stacked for output in outputs):
        axes = added_axes(how, variables, others)
        # By the pass's order of calls: `jax.eval_shape` sorts the keys of what it returns.
        found = [where for key in taken.calls for call in axes.get(key, ()) for where in call]
        places = iter(found)
        outputs = [o if o.reason else o._replace(axes=next(places)) for o in outputs]
    if not taken.created or mode == "eval":
        return outputs
    # Flax made the statistics; once they are there, only writing changes them.
    again: list[LayerOutput] = []

    def once_more(made: Any) -> None:
        again.extend(_described(run(how, {**variables, **made}, collections=others)))

    jax.eval_shape(once_more, taken.created)
    pairs = zip(outputs, again, strict=True)
    return [output._replace(statistics=other.statistics) for output, other in pairs]


def _described(taken: Pass) -> list[LayerOutput]:
    """One entry per call and array of a pass."""
    outputs = []
    for key, calls in taken.calls.items():
        entry, layer = taken.layers[key], name_of(key)
        hidden = calls is None and bool(entry.around)
        calls = () if calls is None else calls
        # A layer may be called outside of a transform, too: these calls do get out.
        outside = sum(not around for around in entry.around)
        hidden |= len(calls) <= outside < len(entry.around)
        lost = [*[_HIDDEN] * hidden, *[_WHILE] * bool(entry.looped)]
        for call, y in enumerate(calls):
            written, ndims = (_of_call(x, call, len(calls)) for x in (entry.written, entry.ndims))
            statistics = ("batch" if written else "running") if entry.keeps else "none"
            leaves = jax.tree_util.tree_leaves_with_path(y)
            for (where, leaf), ndim in zip(leaves, ndims, strict=True):
                at, stacked = jax.tree_util.keystr(where), np.ndim(leaf) - ndim
                outputs.append(LayerOutput(layer, call, at, entry.kind, statistics, leaf, stacked))
        for call, reason in enumerate(lost, start=len(calls)):
            unknown = "unknown" if entry.keeps else "none"
            outputs.append(LayerOutput(layer, call, "", entry.kind, unknown, None, reason=reason))
    return outputs


def _of_call(noted: list[Any], call: int, calls: int) -> Any:
    """Return the notes of a call: scans are traced more than once, repeated jit calls once."""
    last = noted[-calls:]
    return last[min(call, len(last) - 1)]


def select_outputs(outputs: list[LayerOutput], places: tuple[str, ...] | None) -> list[LayerOutput]:
    """Return the outputs that lie at one of the places in their layer's output; None: all.

    Raises:
        ValueError: If there is none.
    """
    if places is None:
        return outputs
    chosen = [output for output in outputs if output.output in places or output.reason]
    if all(output.reason for output in chosen):
        found = ", ".join(sorted({repr(output.output) for output in outputs}))
        raise ValueError(
            f"`outputs` (={places}) selects no array: the layers return arrays at {found}; name "
            "some of these."
        )
    return chosen
