"""A linen model as a function from its variables and a batch to its layers' outputs."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax

from unitnorm_jax.ics.probe._capture import LayerOutput, layer_outputs, select_outputs
from unitnorm_jax.ics.probe._layers import layer_filter
from unitnorm_jax.ics.probe._split import is_array
from unitnorm_jax.ics.probe._variables import collections


class Linen:
    """The outputs of a linen model's layers, by `layer_outputs`; see `ICSProbe`."""

    def __init__(
        self,
        model: nn.Module,
        layers: Any,
        places: tuple[str, ...] | None,
        mode: str,
        kwargs: Mapping[str, Any],
        apply_method: str | Callable[..., Any] | None,
        axis_names: tuple[str, ...],
    ) -> None:
        """Check which layers are wanted."""
        self._model, self._wanted, self._places = model, layer_filter(layers), places
        self._mode, self._kwargs, self._method = mode, kwargs, apply_method
        self._axis_names = axis_names

    def prepare(self, name: str, variables: Any) -> Any:
        """Return the collections, checked; see `collections`."""
        return collections(name, variables)

    def outputs(self, variables: Any, args: tuple[Any, ...], rngs: Any) -> list[LayerOutput]:
        """Return what the wanted layers return.

        Args:
            variables: From `prepare`.
            args: Positional arguments of the model.
            rngs: Keys by name.
        """
        described: list[LayerOutput] = []

        def forward(variables: Any, rngs: Any, arrays: list[jax.Array]) -> list[jax.Array]:
            outputs = layer_outputs(
                self._model,
                variables,
                joined(arrays),
                self._kwargs,
                wanted=self._wanted,
                mode=self._mode,
                rngs=rngs,
                method=self._method,
                strict=False,
            )
            described[:] = select_outputs(outputs, self._places)
            return [output.value for output in described if is_array(output.value)]

        leaves, tree = jax.tree.flatten(args)
        places = [i for i, leaf in enumerate(leaves) if is_array(leaf)]

        def joined(arrays: list[jax.Array]) -> tuple[Any, ...]:
            given = dict(zip(places, arrays, strict=True))
            return jax.tree.unflatten(tree, [given.get(i, x) for i, x in enumerate(leaves)])

        for name in self._axis_names:
            forward = jax.vmap(forward, None, axis_name=name, axis_size=1)
        values = iter(forward(variables, rngs, [leaves[i] for i in places]))
        mapped = len(self._axis_names)
        return [
            o._replace(value=(y := next(values)).reshape(y.shape[mapped:]))
            if is_array(o.value)
            else o
            for o in described
        ]
