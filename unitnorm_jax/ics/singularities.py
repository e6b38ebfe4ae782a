"""Elimination singularities of a Flax model, layer by layer."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax import functional
from unitnorm_jax.ics.capture import layer_outputs
from unitnorm_jax.ics.layers import layer_filter


class LayerActivity(NamedTuple):
    """How near a layer's channels are to elimination.

    Attributes:
      layer: path of the module, joined with "/".
      channels: their number.
      dead: number of channels whose ReLU is off for the whole data set.
      mean_to_std: |mean| / standard deviation over the data set of each channel, (channels,).
    """

    layer: str
    channels: int
    dead: int
    mean_to_std: np.ndarray

    @property
    def dead_fraction(self) -> float:
        """Share of dead channels."""
        return self.dead / self.channels

    @property
    def worst(self) -> float:
        """The largest |mean| / standard deviation of a channel."""
        return float(self.mean_to_std.max())


def elimination_singularities(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[Any],
    *,
    layers: Any = None,
    **kwargs: Any,
) -> list[LayerActivity]:
    """Count dead channels, and measure how near the others are, over a data set.

    See ``functional.channel_activity``. The outputs of the layers must be pre-activations, what
    goes into a ReLU (the first, where a layer returns several); their last axis is that of the
    channels.

    Args:
      model: any linen module.
      variables: its collections; they are not changed.
      batches: inputs of the model, one after the other; each is one argument of ``model.apply``.
      layers: which layers, as ``layer_filter`` takes it; None: every normalization.
      **kwargs: for ``model.apply``, such as ``train=False``.

    Returns:
      One entry per layer, in the order of their calls; a layer that is called twice has two.

    Raises:
      ValueError: there is no batch, or no layer is selected.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp
      >>> model = nn.Sequential([nn.Dense(8), nn.LayerNorm(), nn.relu, nn.Dense(2)])
      >>> x = jax.random.normal(jax.random.key(0), (5, 20, 4))
      >>> variables = model.init(jax.random.key(1), x[0])
      >>> (layer,) = elimination_singularities(model, variables, x)
      >>> layer.layer, layer.channels, layer.dead
      ('layers_1', 8, 0)
    """
    wanted = layer_filter(layers)
    names: list[str] = []

    @jax.jit
    def update(variables: Any, batch: Any, before: Any) -> Any:
        outputs = layer_outputs(model, variables, (batch,), kwargs, wanted=wanted)
        outputs = [output for output in outputs if output.output in ("", "[0]")]
        names[:] = [output.layer for output in outputs]
        before = before or [None] * len(outputs)
        return [
            functional.channel_activity(output.value, activity)
            for output, activity in zip(outputs, before, strict=True)
        ]

    activities: list[functional.ChannelActivity] = []
    for batch in batches:
        activities = update(variables, jnp.asarray(batch), activities)
    if not activities:
        raise ValueError("`batches` is empty: give the inputs of a data set, batch by batch.")
    return [
        LayerActivity(
            layer=name,
            channels=len(activity.mean),
            dead=int(functional.dead_channels(activity).sum()),
            mean_to_std=np.asarray(functional.mean_to_std(activity)),
        )
        for name, activity in zip(names, activities, strict=True)
    ]
