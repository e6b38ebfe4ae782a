"""Residual networks of independent-component layers: the paper's three orders of a unit."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.preact_resnet import (
    Conv,
    Dense,
    ModuleDef,
    norm_paths,
    stage_blocks,
)
from unitnorm_jax.contrib.independent_component import IndependentComponent

ORDERS = ("relu-ic-conv", "ic-conv-relu", "conv-relu-ic")


class ICBlock(nn.Module):
    """Residual block of units in one of three orders, plus the shortcut.

    The first convolution carries the stride. Where the block changes the shape, a 1x1 convolution
    of the block's input is the shortcut; elsewhere the input itself.

    Attributes:
        filters: Number of output channels of each convolution.
        kernel_sizes: Side of each convolution's kernel, pixels.
        strides: Stride of the first convolution and of the shortcut, pixels.
        order: One of ``ORDERS``.
        norm: Makes an independent-component layer from ``name``.
        conv: Makes a convolution from ``features``, ``kernel_size``, ``strides`` and ``name``.
    """

    filters: Sequence[int]
    kernel_sizes: Sequence[int]
    strides: int
    order: str
    norm: ModuleDef
    conv: ModuleDef = Conv

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``(n, h, w, c)`` to ``(n, h / strides, w / strides, filters[-1])``."""
        y = x
        for i, (features, size) in enumerate(zip(self.filters, self.kernel_sizes, strict=True)):
            strides = (self.strides, self.strides) if i == 0 else (1, 1)
            layers = {
                "relu": nn.relu,
                "ic": self.norm(name=f"norm_{i}"),
                "conv": self.conv(features, (size, size), strides=strides, name=f"conv_{i}"),
            }
            for layer in self.order.split("-"):
                y = layers[layer](y)
        if x.shape != y.shape:
            strides = (self.strides, self.strides)
            x = self.conv(self.filters[-1], (1, 1), strides=strides, name="shortcut")(x)
        return x + y


class ICResNet(nn.Module):
    """ResNet of independent-component layers: no norm or activation behind the addition.

    A unit is one convolution with an IC layer (batch normalization, dropout) and a ReLU, in one
    of the paper's three orders; a block is two of them (three in a bottleneck) and the shortcut::

        relu-ic-conv    x + Conv(IC(ReLU(Conv(IC(ReLU(x))))))      the one the paper advocates
        ic-conv-relu    x + ReLU(Conv(IC(ReLU(Conv(IC(x))))))
        conv-relu-ic    x + IC(ReLU(Conv(IC(ReLU(Conv(x))))))

    Stem and classifier are not described where the paper could be read. Here they complete the
    units: behind the stem's convolution comes what follows one in a unit, before the classifier
    what precedes one. Names are those of ``PreActResNet``, hence so are the initial convolution
    and dense weights for the same seed.

    Attributes:
        num_classes: Number of logits.
        blocks: Number of blocks of each stage. Stages after the first halve the image.
        widths: Number of channels of each stage; the stem has ``widths[0]``.
        bottleneck: Whether blocks are 1x1, 3x3, 1x1 convolutions with ``4 * width`` output
            channels (True), or two 3x3 convolutions (False).
        norm: Makes an IC layer; called with ``use_running_average`` and ``name``.
        conv: Makes a convolution, like ``flax.linen.Conv``.
        dense: Makes the classifier, like ``flax.linen.Dense``.
        order: One of ``ORDERS``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = ICResNet(blocks=(1, 1), widths=(8, 16), order="ic-conv-relu")
        >>> x = jnp.zeros((2, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), x, train=False)
        >>> model.apply(variables, x, train=False).shape
        (2, 10)

    References:
        G. Chen, P. Chen, Y. Shi, C.-Y. Hsieh, B. Liao, S. Zhang, "Rethinking the Usage of Batch
        Normalization and Dropout in the Training of Deep Neural Networks", 2019,
        https://arxiv.org/abs/1905.05928. That there are three orders, and which is advocated, is
        the paper's; that these are the three is inferred from its published ports.
    """

    num_classes: int = 10
    blocks: Sequence[int] = (3, 3, 3)
    widths: Sequence[int] = (16, 32, 64)
    bottleneck: bool = False
    norm: ModuleDef = IndependentComponent
    conv: ModuleDef = Conv
    dense: ModuleDef = Dense
    order: str = "relu-ic-conv"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits.

        Args:
            x: Images, ``(n, h, w, channels)``.
            train: Whether normalization uses the batch's statistics, and dropout is on: ``apply``
                then needs ``rngs={"dropout": key}``.

        Returns:
            Logits, ``(n, num_classes)``.

        Raises:
            ValueError: If ``order`` is unknown, or ``blocks`` and ``widths`` differ in length.
        """
        before, after = self._around_conv()
        blocks = stage_blocks(self.blocks, self.widths, self.bottleneck)
        norm = functools.partial(self.norm, use_running_average=not train)
        x = self.conv(self.widths[0], (3, 3), name="stem_conv")(x)
        x = self._apply(after, x, norm, "stem_norm")
        for _, fields in blocks:
            x = ICBlock(**fields, order=self.order, norm=norm, conv=self.conv)(x)
        x = self._apply(before, x, norm, "head_norm")
        x = jnp.mean(x, axis=(1, 2))  # (n, h, w, c) -> (n, c)
        return self.dense(self.num_classes, name="head")(x)

    def norm_paths(self) -> list[tuple[str, ...]]:
        """Return the paths of the IC layers in the variables, from input to output."""
        before, after = self._around_conv()
        stem, *inner, head = norm_paths(self.blocks, self.bottleneck)
        return [*[stem] * ("ic" in after), *inner, *[head] * ("ic" in before)]

    def _around_conv(self) -> tuple[list[str], list[str]]:
        """Return what comes before and behind the convolution of a unit."""
        if self.order not in ORDERS:
            raise ValueError(
                f"`order` (={self.order!r}) is unknown; choose from {', '.join(ORDERS)}."
            )
        layers = self.order.split("-")
        return layers[: layers.index("conv")], layers[layers.index("conv") + 1 :]

    def _apply(self, layers: list[str], x: jax.Array, norm: Any, name: str) -> jax.Array:
        for layer in layers:
            x = nn.relu(x) if layer == "relu" else norm(name=name)(x)
        return x
