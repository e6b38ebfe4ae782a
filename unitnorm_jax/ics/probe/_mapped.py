"""How a model is called, and that inside mapped axes of size 1, where its layers reduce by name."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from unitnorm_jax.ics.probe._capture import LayerOutput
from unitnorm_jax.ics.probe._split import is_array, split

Take = Callable[[Any, Any, tuple[Any, ...]], list[LayerOutput]]


class Calling(NamedTuple):
    """How a model is called for the outputs of its layers; see `ICSProbe`."""

    layers: Any
    outputs: tuple[str, ...] | None
    mode: str
    kwargs: Mapping[str, Any]
    method: str | Callable[..., Any] | None
    axis_names: tuple[str, ...]


def under_axes(
    names: tuple[str, ...], take: Take, state: Any, rngs: Any, args: tuple[Any, ...]
) -> list[LayerOutput]:
    """Return ``take(state, rngs, args)``, called as the only member of each of the axes.

    Args:
        names: Of the axes.
        take: Returns outputs of layers.
        state: A tree of arrays.
        rngs: A tree of keys.
        args: Any tree; what is no array in it is handed on as it is.
    """
    if not names:
        return take(state, rngs, args)
    described: list[LayerOutput] = []
    arrays, rest = split(args)

    def values(state: Any, rngs: Any, arrays: Any) -> list[jax.Array]:
        described[:] = take(state, rngs, rest.joined(arrays))
        return [output.value for output in described if is_array(output.value)]

    for name in names:
        values = jax.vmap(values, None, axis_name=name, axis_size=1)
    found = iter(values(state, rngs, arrays))

    def unmapped(output: LayerOutput) -> LayerOutput:
        if not is_array(output.value):
            return output
        y = next(found)
        return output._replace(value=y.reshape(y.shape[len(names) :]))

    return [unmapped(output) for output in described]
