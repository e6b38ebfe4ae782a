"""The pre-activation ResNet whose normalization layers predict from layer to layer."""

import functools
from collections.abc import Callable, Sequence

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
from unitnorm_jax.contrib.batch_kalman_norm import (
    BatchKalmanNorm,
    Moments,
    add_moments,
    layer_moments,
    relu_moments,
    sampled_moments,
)

PREDICTIONS = ("moments", "sampling")


class KalmanBlock(nn.Module):
    """``experiments.models.preact_resnet.Block`` that carries moments along with its images.

    The first norm is predicted by the moments handed in, each further one by pushing the moments
    behind the norm before through relu and convolution. What is handed on is the residual rule:
    moments handed in (through the shortcut's convolution where there is one) plus those of the
    last convolution.

    Attributes:
        filters: Number of output channels of each convolution.
        kernel_sizes: Side of each convolution's kernel, pixels.
        strides: Stride of the first convolution and of the shortcut, pixels.
        norm: Makes a ``BatchKalmanNorm`` from ``name``.
        prediction: "moments" or "sampling"; None makes no predictions.
        conv: Makes an ``nn.Conv``.
    """

    filters: Sequence[int]
    kernel_sizes: Sequence[int]
    strides: int
    norm: ModuleDef
    prediction: str | None = "moments"
    conv: ModuleDef = Conv

    @nn.compact
    def __call__(self, x: jax.Array, moments: Moments | None) -> tuple[jax.Array, Moments | None]:
        """Map ``(n, h, w, c)`` and the moments of its slices to those of the output."""
        y, behind = x, moments
        for i, (features, size) in enumerate(zip(self.filters, self.kernel_sizes, strict=True)):
            y, behind = self.norm(name=f"norm_{i}")(y, prediction=behind)
            strides = (self.strides, self.strides) if i == 0 else (1, 1)
            conv = self.conv(features, (size, size), strides=strides, name=f"conv_{i}")
            shape = y.shape
            y = conv(nn.relu(y))
            behind = self._predict(conv, behind, shape, nn.relu) if moments else None
        if x.shape != y.shape:
            strides = (self.strides, self.strides)
            conv = self.conv(self.filters[-1], (1, 1), strides=strides, name="shortcut")
            shape, x = x.shape, conv(x)
            moments = self._predict(conv, moments, shape, None) if moments else None
        return x + y, add_moments(moments, behind) if moments and behind else None

    def _predict(
        self,
        conv: nn.Module,
        moments: Moments,
        shape: tuple[int, ...],
        act: Callable[[jax.Array], jax.Array] | None,
    ) -> Moments:
        """Moments of ``conv(act(z))`` for normal z; act is relu, or None for the identity."""
        if self.prediction == "moments":
            return layer_moments(conv, relu_moments(moments) if act else moments, shape)
        slices = len(moments.mean)
        noise = jax.random.normal(self.make_rng("kalman"), (slices, *shape[1:]), moments.mean.dtype)
        return sampled_moments(moments, noise, lambda s: conv(act(s) if act else s))


class KalmanResNet(nn.Module):
    """``PreActResNet`` for ``BatchKalmanNorm``: the same graph, names and initial weights.

    In training each normalization layer gets the moments that are predicted for its input from
    the layer before; the stem's has none. At inference nothing is predicted.

    Attributes:
        num_classes: Number of logits.
        blocks: Number of blocks of each stage. Stages after the first halve the image.
        widths: Number of channels of each stage; the stem has ``widths[0]``.
        bottleneck: Whether blocks are bottlenecks, with ``4 * width`` output channels.
        norm: Makes a ``BatchKalmanNorm``; called with ``use_running_average``, ``name`` and, for
            the stem's, ``first``.
        conv: Makes an ``nn.Conv``; with "sampling" any convolution.
        dense: Makes the classifier.
        prediction: "moments": by formulas, for independent channels. "sampling": by one normal
            draw per slice, as in the authors' code; needs the random stream "kalman". None: no
            predictions, for a norm that needs none (gain 1).

    Example:
        >>> import functools, jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.batch_kalman_norm import BatchKalmanNorm
        >>> norm = functools.partial(BatchKalmanNorm, slice_size=2)
        >>> model = KalmanResNet(num_classes=10, blocks=(1, 1), widths=(8, 16), norm=norm)
        >>> x = jnp.zeros((4, 8, 8, 1))
        >>> variables = model.init(jax.random.key(0), x, train=False)
        >>> model.apply(variables, x, train=True, mutable=["batch_stats"])[0].shape
        (4, 10)

    References:
        G. Wang, J. Peng, P. Luo, X. Wang, L. Lin, "Kalman Normalization: Normalizing Internal
        Representations Across Network Layers", NeurIPS 2018, https://arxiv.org/abs/1802.03133.
        Their network has no norm at the start of its first block, and shortcuts without weights;
        the rule for convolutions in shortcuts is derived here.
    """

    num_classes: int = 10
    blocks: Sequence[int] = (3, 3, 3)
    widths: Sequence[int] = (16, 32, 64)
    bottleneck: bool = False
    norm: ModuleDef = BatchKalmanNorm
    conv: ModuleDef = Conv
    dense: ModuleDef = Dense
    prediction: str | None = "moments"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Return the logits; see ``PreActResNet``."""
        if self.prediction not in (*PREDICTIONS, None):
            raise ValueError(
                f"`prediction` (={self.prediction!r}) must be one of "
                f"{', '.join(map(repr, PREDICTIONS))}, or None for no predictions."
            )
        blocks = stage_blocks(self.blocks, self.widths, self.bottleneck)
        norm = functools.partial(self.norm, use_running_average=not train)
        x = self.conv(self.widths[0], (3, 3), name="stem_conv")(x)
        x, stem = norm(name="stem_norm", first=True)(x)
        moments = relu_moments(stem) if train and self.prediction else None
        x = nn.relu(x)
        for _, fields in blocks:
            x, moments = KalmanBlock(
                **fields, norm=norm, prediction=self.prediction, conv=self.conv
            )(x, moments)
        x, _ = norm(name="head_norm")(x, prediction=moments)
        x = jnp.mean(nn.relu(x), axis=(1, 2))  # (n, h, w, c) -> (n, c)
        return self.dense(self.num_classes, name="head")(x)

    def norm_paths(self) -> list[tuple[str, ...]]:
        """Return the paths of the normalization layers in the variables, from input to output."""
        return norm_paths(self.blocks, self.bottleneck)
