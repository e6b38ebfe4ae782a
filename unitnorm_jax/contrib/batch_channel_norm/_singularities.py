"""Elimination singularities of a Flax model, layer by layer."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax.contrib.batch_channel_norm._channel_activity import (
    ChannelActivity,
    channel_activity,
    dead_channels,
    mean_to_std,
)
from unitnorm_jax.ics.probe._capture import LayerOutput, layer_outputs, select_outputs
from unitnorm_jax.ics.probe._devices import placed_by_compiler
from unitnorm_jax.ics.probe._layers import layer_filter


class LayerActivity(NamedTuple):
    """How near a layer's channels are to elimination.

    Attributes:
        layer: path of the module, joined with "/".
        dead: number of channels whose ReLU is off for the whole data set.
        mean_to_std: |mean| / standard deviation over the data set of each channel, (channels,).
    """

    layer: str
    dead: int
    mean_to_std: np.ndarray

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.mean_to_std)

    @property
    def dead_fraction(self) -> float:
        """Share of dead channels."""
        return self.dead / self.channels

    @property
    def worst(self) -> float:
        """The largest |mean| / standard deviation of a channel; NaN if a channel's is."""
        return float(self.mean_to_std.max())

    @property
    def not_finite(self) -> list[int]:
        """Channels whose values over the data set were not all finite, or too large to square."""
        return np.flatnonzero(np.isnan(self.mean_to_std)).tolist()


def elimination_singularities(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[Any],
    *,
    layers: Any = None,
    outputs: tuple[str, ...] | None = ("", "[0]"),
    **kwargs: Any,
) -> list[LayerActivity]:
    """Count dead channels, and measure how near the others are, over a data set.

    See ``channel_activity``. The outputs of the layers must be pre-activations, what
    goes into a ReLU; their last axis is that of the channels.

    Args:
        model: any linen module.
        variables: its collections; they are not changed.
        batches: inputs of the model, one after the other; each is one argument of ``model.apply``.
        layers: which layers, as ``layer_filter`` takes it; None: every normalization.
        outputs: where a layer returns several arrays, which of them, by their place (as
            ``ICSProbe`` takes them); by default the output, or the first of a tuple.
        **kwargs: for ``model.apply``, such as ``train=False``.

    Returns:
        One entry per layer, in the order of their calls; a layer that is called twice has two.

    Raises:
        ValueError: there is no batch, no layer or no array is selected, or a layer lies inside
            ``nn.scan`` or ``nn.vmap``, which stack the channels of several layers.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> model = nn.Sequential([nn.Dense(8), nn.LayerNorm(), nn.relu, nn.Dense(2)])
        >>> x = jax.random.normal(jax.random.key(0), (5, 20, 4))
        >>> variables = model.init(jax.random.key(1), x[0])
        >>> (layer,) = elimination_singularities(model, variables, x)
        >>> layer.layer, layer.channels, layer.dead
        ('layers_1', 8, 0)
    """
    options = (_Same(model), layers, outputs, tuple(sorted(kwargs.items())))
    try:
        update, names = _compiled(*options)
    except TypeError:  # an option that cannot be hashed
        update, names = _compiled.__wrapped__(*options)
    activities: list[ChannelActivity] = []
    for batch in batches:
        activities = placed_by_compiler(update, variables, jnp.asarray(batch), activities)
    if not activities:
        raise ValueError("`batches` is empty: give the inputs of a data set, batch by batch.")
    return [
        LayerActivity(
            layer=name,
            dead=int(dead_channels(activity).sum()),
            mean_to_std=np.asarray(mean_to_std(activity)),
        )
        for name, activity in zip(names, activities, strict=True)
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class _Same:
    """A model as a key: itself, and no equal one. Many have lists, and no hash."""

    model: nn.Module

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.model is other.model

    def __hash__(self) -> int:
        return id(self.model)


@functools.lru_cache(maxsize=16)  # A new function would be compiled at every call.
def _compiled(
    model: "_Same", layers: Any, outputs: tuple[str, ...] | None, kwargs: tuple[Any, ...]
) -> tuple[Callable[..., Any], list[str]]:
    """Return the update of the activities by a batch; the list names their layers, once it ran."""
    wanted, names = layer_filter(layers), list[str]()

    @jax.jit
    def update(variables: Any, batch: Any, before: Any) -> Any:
        found = layer_outputs(model.model, variables, (batch,), dict(kwargs), wanted=wanted)
        chosen = select_outputs(found, outputs)
        _check_not_stacked(chosen)
        names[:] = [output.layer for output in chosen]
        return [
            channel_activity(output.value, activity)
            for output, activity in zip(chosen, before or [None] * len(chosen), strict=True)
        ]

    return update, names


def _check_not_stacked(outputs: Iterable[LayerOutput]) -> None:
    for output in outputs:
        if output.stacked:
            raise ValueError(
                f"The outputs of layer {output.layer!r}, inside nn.scan or nn.vmap, come stacked "
                f"(shape {output.value.shape}): channels of several layers would count as one. "
                "Leave the layer out with `layers`, or write the scan as a loop over layers, each "
                "given its slice of the parameters."
            )
