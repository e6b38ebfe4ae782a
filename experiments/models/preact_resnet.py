"""Pre-activation residual networks for small images, as in the paper's CIFAR experiments."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# As in Flax's own examples: anything that makes a module when called with its fields.
ModuleDef = Callable[..., Any]

# Flax's default kernel initializer is LeCun's, the authors' is He's. (Their Keras does not correct
# for the truncation of the normal distribution, so their deviation is 0.88 times this one.)
Conv = functools.partial(nn.Conv, kernel_init=nn.initializers.he_normal())
Dense = functools.partial(nn.Dense, kernel_init=nn.initializers.he_normal())


class Block(nn.Module):
    """Pre-activation block: ``(norm, relu, conv)`` two or three times, plus the shortcut.

    The first convolution carries the stride. Where the block changes the shape, a 1x1 convolution
    of the RAW block input (before the first norm) is the shortcut; elsewhere the input itself.

    Attributes:
        filters: Number of output channels of each convolution.
        kernel_sizes: Side of each convolution's kernel, pixels: ``(3, 3)`` is the basic block,
            ``(1, 3, 1)`` the bottleneck.
        strides: Stride of the first convolution and of the shortcut, pixels.
        norm: Makes a normalization layer from ``name``.
        input_norm: The same for the first layer, the one at the size of the block's input; None is
            ``norm``.
        conv: Makes a convolution from ``features``, ``kernel_size``, ``strides`` and ``name``.
        shortcut_conv: The same for the shortcut; None is ``conv``.
        act: The activation, a function.
        add: Adds shortcut and branch; None: there is no shortcut.
    """

    filters: Sequence[int]
    kernel_sizes: Sequence[int]
    strides: int
    norm: ModuleDef
    input_norm: ModuleDef | None = None
    conv: ModuleDef = Conv
    shortcut_conv: ModuleDef | None = None
    act: Callable[..., Any] = nn.relu
    add: Callable[..., Any] | None = operator.add

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``(n, h, w, c)`` to ``(n, h / strides, w / strides, filters[-1])``."""
        y = x
        for i, (features, size) in enumerate(zip(self.filters, self.kernel_sizes, strict=True)):
            norm = self.input_norm if i == 0 and self.input_norm else self.norm
            y = self.act(norm(name=f"norm_{i}")(y))
            strides = (self.strides, self.strides) if i == 0 else (1, 1)
            y = self.conv(features, (size, size), strides=strides, name=f"conv_{i}")(y)
        if self.add is None:
            return y
        if x.shape != y.shape:
            strides = (self.strides, self.strides)
            conv = self.shortcut_conv or self.conv
            x = conv(self.filters[-1], (1, 1), strides=strides, name="shortcut")(x)
        return self.add(x, y)


def stage_blocks(
    blocks: Sequence[int], widths: Sequence[int], bottleneck: bool
) -> list[tuple[int, dict[str, Any]]]:
    """Return stage and fields of every block of a network, from input to output.

    Args:
        blocks: Number of blocks of each stage. Stages after the first halve the image.
        widths: Number of channels of each stage.
        bottleneck: Whether blocks are bottlenecks, with ``4 * width`` output channels.

    Returns:
        The number of its stage, and ``filters``, ``kernel_sizes``, ``strides`` and ``name``: fields
        of ``Block``, and of all that stand in its place.

    Raises:
        ValueError: If ``blocks`` and ``widths`` differ in length.

    Example:
        >>> [(stage, fields["strides"]) for stage, fields in stage_blocks((1, 2), (8, 16), False)]
        [(0, 1), (1, 2), (1, 1)]
    """
    if len(widths) != len(blocks):
        raise ValueError(
            f"`widths` (={tuple(widths)}) must have one entry per stage, as `blocks` "
            f"(={tuple(blocks)}) has: {len(blocks)}."
        )
    places = [(stage, i) for stage, count in enumerate(blocks) for i in range(count)]
    return [
        (
            stage,
            {
                "filters": (widths[stage],) * 2 + (4 * widths[stage],) * bottleneck,
                "kernel_sizes": (1, 3, 1) if bottleneck else (3, 3),
                "strides": 2 if stage > 0 and i == 0 else 1,
                "name": f"block_{index}",
            },
        )
        for index, (stage, i) in enumerate(places)
    ]


def norm_paths(blocks: Sequence[int], bottleneck: bool) -> list[tuple[str, ...]]:
    """Return the paths of all normalization layers in the variables, from input to output.

    Args:
        blocks: Number of blocks of each stage.
        bottleneck: Whether blocks are bottlenecks.
    """
    norms = range(3 if bottleneck else 2)
    inner = [(f"block_{i}", f"norm_{j}") for i in range(sum(blocks)) for j in norms]
    return [("stem_norm",), *inner, ("head_norm",)]


class PreActResNet(nn.Module):
    """Pre-activation ResNet: stem, stages of blocks, norm, relu, classifier.

    ``stem_conv -> stem_norm -> relu -> block_0 -> ... -> head_norm -> relu -> mean over positions
    -> head``. The output of the stem's relu feeds both branches of ``block_0``, whose own norm and
    relu follow at once: so it is in the authors' network. Names are the same for every ``norm``,
    hence so are the initial convolution and dense weights for the same seed.

    Attributes:
        num_classes: Number of logits.
        blocks: Number of blocks of each stage. Stages after the first halve the image.
        widths: Number of channels of each stage; the stem has ``widths[0]``.
        bottleneck: Whether blocks are 1x1, 3x3, 1x1 convolutions with ``4 * width`` output
            channels (True), or two 3x3 convolutions (False).
        norm: Makes a normalization layer; called with ``use_running_average`` and ``name``. A
            tuple gives each image size (so each stage) its own; the first layer of a stage, before
            its strided convolution, still has the size of the stage before.
        conv: Makes a convolution, like ``flax.linen.Conv``.
        dense: Makes the classifier, like ``flax.linen.Dense``.
        shortcut_conv: Makes the 1x1 convolutions of shortcuts; None is ``conv``.
        act: The activation, a function; what is called relu above.
        add: Adds shortcut and branch of a block, a function of the two; None: there are no
            shortcuts, and blocks are chains of layers.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> model = PreActResNet(num_classes=10, blocks=(1, 1), widths=(8, 16), norm=nn.BatchNorm)
        >>> x = jnp.zeros((2, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), x, train=False)
        >>> model.apply(variables, x, train=False).shape
        (2, 10)

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Identity Mappings in Deep Residual Networks", ECCV 2016,
        https://arxiv.org/abs/1603.05027.
        Y. Huang, Y. Yu, "An Internal Covariate Shift Bounding Algorithm for Deep Neural Networks by
        Unitizing Layers' Outputs", CVPR 2020, https://arxiv.org/abs/2001.02814.
    """

    num_classes: int = 10
    blocks: Sequence[int] = (3, 3, 3)
    widths: Sequence[int] = (16, 32, 64)
    bottleneck: bool = False
    norm: ModuleDef | tuple[ModuleDef, ...] = nn.BatchNorm
    conv: ModuleDef = Conv
    dense: ModuleDef = Dense
    shortcut_conv: ModuleDef | None = None
    act: Callable[..., Any] = nn.relu
    add: Callable[..., Any] | None = operator.add

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits.

        Args:
            x: Images, ``(n, h, w, channels)``.
            train: Whether normalization uses the batch's statistics (and updates the running ones
                where the ``batch_stats`` collection is mutable) or the running ones.

        Returns:
            Logits, ``(n, num_classes)``.

        Raises:
            ValueError: If the stages given by ``blocks``, ``widths`` and ``norm`` are not as many.
        """
        blocks = stage_blocks(self.blocks, self.widths, self.bottleneck)
        norms = [functools.partial(norm, use_running_average=not train) for norm in self._norms()]
        x = self.conv(self.widths[0], (3, 3), name="stem_conv")(x)
        x = self.act(norms[0](name="stem_norm")(x))
        for stage, fields in blocks:
            x = Block(
                **fields,
                norm=norms[stage],
                input_norm=norms[stage - 1] if fields["strides"] > 1 else norms[stage],
                conv=self.conv,
                shortcut_conv=self.shortcut_conv,
                act=self.act,
                add=self.add,
            )(x)
        x = self.act(norms[-1](name="head_norm")(x))
        x = jnp.mean(x, axis=(1, 2))  # (n, h, w, c) -> (n, c)
        return self.dense(self.num_classes, name="head")(x)

    def norm_paths(self) -> list[tuple[str, ...]]:
        """Return the paths of the normalization layers in the variables, from input to output."""
        return norm_paths(self.blocks, self.bottleneck)

    def _norms(self) -> tuple[ModuleDef, ...]:
        stages = len(self.blocks)
        norms = self.norm if isinstance(self.norm, tuple) else (self.norm,) * stages
        if len(norms) != stages:
            raise ValueError(
                f"`norm` is a tuple of {len(norms)}, but must have one entry per stage: {stages} "
                f"for `blocks` (={tuple(self.blocks)}). Give one norm to use it in every stage."
            )
        return norms


# The paper's networks.
resnet18 = functools.partial(PreActResNet, blocks=(3, 3, 3))
resnet110 = functools.partial(PreActResNet, blocks=(18, 18, 18))
# The graph of the authors' 164-layer network was not at hand: that the first convolution of a
# bottleneck carries the stride is inferred from their basic block; parameter counts agree.
resnet164 = functools.partial(PreActResNet, blocks=(18, 18, 18), bottleneck=True)
