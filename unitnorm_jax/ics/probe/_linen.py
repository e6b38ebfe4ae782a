"""A linen model as a function from its variables and a batch to its layers' outputs."""

from typing import Any

import flax.linen as nn

from unitnorm_jax.ics.measures import EstimationShift
from unitnorm_jax.ics.probe._capture import LayerOutput, layer_outputs, select_outputs
from unitnorm_jax.ics.probe._estimation import Shifts, as_outputs, as_shifts, shift_at
from unitnorm_jax.ics.probe._layer_order import layer_order
from unitnorm_jax.ics.probe._layers import keeps_statistics, layer_filter
from unitnorm_jax.ics.probe._mapped import Calling, under_axes
from unitnorm_jax.ics.probe._sowing import Model, name_of, run, visible
from unitnorm_jax.ics.probe._variables import collections


class Linen:
    """The outputs of a linen model's layers, by `layer_outputs`; see `ICSProbe`."""

    def __init__(self, model: nn.Module, calling: Calling) -> None:
        """Check which layers are wanted."""
        self._model, self._calling, self._wanted = model, calling, layer_filter(calling.layers)

    def prepare(self, name: str, variables: Any) -> Any:
        """Return the collections, checked; see `collections`."""
        return collections(name, variables)

    def check_apart(self, before: Any, after: Any) -> None:
        """Nothing to do: one state twice has not shifted."""

    def layer_order(self, variables: Any, args: tuple[Any, ...], rngs: Any) -> tuple[str, ...]:
        """Return the layers with parameters, in the order of their first calls."""
        options = {"rngs": rngs, "method": self._calling.method, **self._calling.kwargs}
        return layer_order(self._model, variables, *args, **options)

    def parameters(self, variables: Any) -> Any:
        """Return what gradients are taken with respect to."""
        return variables["params"]

    def loss_of(self, loss: Any, variables: Any, args: tuple[Any, ...]) -> Any:
        """Return the user's loss as a function of the parameters."""
        return lambda params: loss({**variables, "params": params}, *args)

    def estimation(self, variables: Any, args: tuple[Any, ...], rngs: Any) -> Shifts:
        """Return how far running statistics are from those of the layers' inputs."""
        how = self._calling

        def at(module: nn.Module, args: Any, kwargs: Any) -> EstimationShift:
            keeps = keeps_statistics(module)
            mean, var = (
                module.get_variable("batch_stats", name) if keeps else None
                for name in ("mean", "var")
            )
            return shift_at(mean, var, getattr(module, "axis", -1), args, kwargs)

        def take(variables: Any, rngs: Any, args: tuple[Any, ...]) -> list[LayerOutput]:
            model = Model(
                *(self._model, args, how.kwargs, self._wanted, how.mode, rngs, how.method), at
            )
            taken = run(model, variables)
            if any(calls is None for calls in taken.calls.values()):
                taken, _ = visible(model, variables, taken)
            return as_outputs({name_of(key): calls for key, calls in taken.calls.items()})

        return as_shifts(under_axes(how.axis_names, take, variables, rngs, args))

    def outputs(self, variables: Any, args: tuple[Any, ...], rngs: Any) -> list[LayerOutput]:
        """Return what the wanted layers return.

        Args:
            variables: From `prepare`.
            args: Positional arguments of the model.
            rngs: Keys by name.
        """
        how = self._calling

        def take(variables: Any, rngs: Any, args: tuple[Any, ...]) -> list[LayerOutput]:
            outputs = layer_outputs(
                self._model,
                variables,
                args,
                how.kwargs,
                wanted=self._wanted,
                mode=how.mode,
                rngs=rngs,
                method=how.method,
                strict=False,
            )
            return select_outputs(outputs, how.outputs)

        return under_axes(how.axis_names, take, variables, rngs, args)
