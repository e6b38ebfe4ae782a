"""Residual networks for ImageNet: ResNet-50 and ResNet-101, version 1.5."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.fields import with_fields
from experiments.models.preact_resnet import Conv, Dense, ModuleDef


class Bottleneck(nn.Module):
    """Bottleneck block: 1x1, 3x3, 1x1 convolutions, each with a norm, plus the shortcut; relu.

    The 3x3 convolution carries the stride (version 1.5; in the paper the first one does). Where
    the block changes the shape, a normalized 1x1 convolution is the shortcut. The last norm starts
    with scale 0, so that the block starts as its shortcut (Goyal et al., 2017).

    Attributes:
        width: Number of channels inside; there are four times as many at the end.
        strides: Stride of the 3x3 convolution and of the shortcut, pixels.
        norm: Makes a normalization layer from ``name`` and, if it has that field, ``scale_init``.
        conv: Makes a convolution, like ``flax.linen.Conv``.
    """

    width: int
    strides: int
    norm: ModuleDef
    conv: ModuleDef = Conv

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``(n, h, w, c)`` to ``(n, h / strides, w / strides, 4 * width)``."""
        conv = functools.partial(self.conv, use_bias=False)
        strides = (self.strides, self.strides)
        last_norm = with_fields(self.norm, scale_init=nn.initializers.zeros)
        y = nn.relu(self.norm(name="norm_0")(conv(self.width, (1, 1), name="conv_0")(x)))
        y = conv(self.width, (3, 3), strides=strides, name="conv_1")(y)
        y = nn.relu(self.norm(name="norm_1")(y))
        y = last_norm(name="norm_2")(conv(4 * self.width, (1, 1), name="conv_2")(y))
        if x.shape != y.shape:
            x = conv(4 * self.width, (1, 1), strides=strides, name="shortcut")(x)
            x = self.norm(name="shortcut_norm")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet version 1.5: stem, four stages of bottleneck blocks, classifier.

    ``stem_conv (7x7, stride 2) -> stem_norm -> relu -> 3x3 maximum, stride 2 -> block_0 -> ... ->
    mean over positions -> head``. Names are the same for every ``norm``.

    Attributes:
        num_classes: Number of logits.
        blocks: Number of blocks of each stage. Stages after the first halve the image.
        widths: Number of channels inside the blocks of each stage; the stem has ``widths[0]``.
        norm: Makes a normalization layer; called with ``use_running_average`` and ``name``.
        conv: Makes a convolution, like ``flax.linen.Conv``.
        dense: Makes the classifier, like ``flax.linen.Dense``.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> model = ResNet(num_classes=10, blocks=(1, 1), widths=(8, 16))
        >>> x = jnp.zeros((2, 32, 32, 3))
        >>> variables = model.init(jax.random.key(0), x, train=False)
        >>> model.apply(variables, x, train=False).shape
        (2, 10)

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016,
        https://arxiv.org/abs/1512.03385; P. Goyal et al., "Accurate, Large Minibatch SGD: Training
        ImageNet in 1 Hour", 2017, https://arxiv.org/abs/1706.02677. The recipe is that of
        https://github.com/google/flax/tree/main/examples/imagenet.
    """

    num_classes: int = 1000
    blocks: Sequence[int] = (3, 4, 6, 3)
    widths: Sequence[int] = (64, 128, 256, 512)
    norm: ModuleDef = nn.BatchNorm
    conv: ModuleDef = Conv
    dense: ModuleDef = Dense

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits.

        Args:
            x: Images, ``(n, h, w, channels)``; 224x224 for ImageNet.
            train: Whether normalization uses the batch's statistics (and updates the running ones
                where the ``batch_stats`` collection is mutable) or the running ones.

        Returns:
            Logits, ``(n, num_classes)``.
        """
        norm = functools.partial(self.norm, use_running_average=not train)
        x = self.conv(
            self.widths[0],
            (7, 7),
            strides=(2, 2),
            padding=[(3, 3), (3, 3)],
            use_bias=False,
            name="stem_conv",
        )(x)
        x = nn.relu(norm(name="stem_norm")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])
        index = 0
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            for i in range(count):
                x = Bottleneck(
                    width=width,
                    strides=2 if stage > 0 and i == 0 else 1,
                    norm=norm,
                    conv=self.conv,
                    name=f"block_{index}",
                )(x)
                index += 1
        x = jnp.mean(x, axis=(1, 2))  # (n, h, w, c) -> (n, c)
        return self.dense(self.num_classes, name="head")(x)

    def norm_paths(self) -> list[tuple[str, ...]]:
        """Return the paths of the normalization layers in the variables, from input to output."""
        paths: list[tuple[str, ...]] = [("stem_norm",)]
        index = 0
        for count in self.blocks:
            for i in range(count):
                names = [f"norm_{j}" for j in range(3)] + ["shortcut_norm"] * (i == 0)
                paths += [(f"block_{index}", name) for name in names]
                index += 1
        return paths


resnet50 = functools.partial(ResNet, blocks=(3, 4, 6, 3))
resnet101 = functools.partial(ResNet, blocks=(3, 4, 23, 3))
