"""What a row of the table of methods is: options in, the parts of a network out."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from experiments.config.methods import NormConfig
from experiments.models.preact_resnet import Conv, Dense, ModuleDef


class Context(NamedTuple):
    """What a method may need to know of the job around it.

    Attributes:
        axis_name: Mapped axis over which batch statistics are taken, None where there is none.
        schedule: Learning rate of an update, counted from 0; None outside of training.
        updates: Number of updates of the job; None outside of training.
        axis_index_groups: Groups of indices within that axis, to share statistics in groups.
        dtype: Of activations; None is that of images and parameters.
    """

    axis_name: str | None = None
    schedule: Callable[[Any], Any] | None = None
    updates: int | None = None
    axis_index_groups: list[list[int]] | None = None
    dtype: Any = None

    @property
    def axes(self) -> dict[str, Any]:
        """What a layer with batch statistics must be given, if devices are to share them."""
        return {"axis_name": self.axis_name, "axis_index_groups": self.axis_index_groups}


class NoNorm(nn.Module):
    """The identity, with the fields that networks pass to a normalization layer."""

    use_running_average: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return ``x``."""
        return x


class Affine(nn.Module):
    """``scale x + bias``, (channels,) each: what a normalization leaves without statistics."""

    use_running_average: bool | None = None
    dtype: Any = None
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the output."""
        inits = {"scale": self.scale_init, "bias": nn.initializers.zeros}
        made = (self.param(name, init, x.shape[-1:]) for name, init in inits.items())
        scale, bias = (z.reshape(*(1,) * (x.ndim - 1), -1) for z in made)
        return (x.astype(scale.dtype) * scale + bias).astype(self.dtype or x.dtype)


AfterUpdate = Callable[[Any], Any]
Bound = Callable[[Mapping[str, Any], Mapping[str, Any], int], jax.Array | None]


class Method(NamedTuple):
    """The parts of a network that a method replaces; the defaults replace nothing.

    Attributes:
        norm: Makes a normalization layer from ``use_running_average`` and ``name``.
        conv: Makes a convolution, with the fields of ``flax.linen.Conv``.
        dense: Makes the classifier, with the fields of ``flax.linen.Dense``.
        network: Makes the network from ``num_classes``, ``blocks``, ``widths``, ``bottleneck`` and
            the three above, if it must be another than the configured one: ``PreActResNet`` with
            further fields set, or any module that has these and ``norm_paths()``.
        after_update: Maps the state after each update of the optimizer to the state that counts;
            None leaves it.
        penalty: Given the network and a batch of its input, returns a further term of the loss, a
            function of the parameters; None: there is none.
        bound: The method's own bound on the shift of a layer that uses the statistics of the batch,
            given its parameters before and after an update and the numbers per sample; None, or it
            returns None, where there is none.
    """

    norm: ModuleDef = NoNorm
    conv: ModuleDef = Conv
    dense: ModuleDef = Dense
    network: ModuleDef | None = None
    after_update: AfterUpdate | None = None
    penalty: Callable[[nn.Module, Any], Callable[[Any], jax.Array]] | None = None
    bound: Bound | None = None


Builder = Callable[[NormConfig, Context], Method]
