"""Normalization propagation as ``flax.linen`` modules."""

import math
from collections.abc import Sequence
from typing import Any, no_type_check

import flax.linen as nn
from flax.typing import Initializer
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.contrib.norm_prop._functional import (
    max_pool_moments,
    norm_prop_activation,
    norm_prop_gain,
    norm_prop_kernel,
)


@no_type_check  # Flax types fields by protocols that cannot be checked at run time
class _NormProp(nn.Module):
    """What both layers add to Flax's; first among their bases, its fields come last."""

    activation: str | None = "relu"
    scale_init: Initializer | None = None
    epsilon: float = 1e-12

    def param(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Return the parameter as the layer uses it: the kernel with unit filters, times scale."""
        value = super().param(name, *args, **kwargs)
        if name != "kernel":
            return value
        init = self.scale_init
        if init is None:
            init = nn.initializers.constant(1 / norm_prop_gain(self.activation))
        scale = super().param("scale", init, (self.features,), self.param_dtype)
        return norm_prop_kernel(value, scale, epsilon=self.epsilon)

    def __call__(self, inputs: Shaped[Array, "..."]) -> Float[Array, "..."]:
        """Multiply or convolve, and activate.

        Args:
            inputs: as ``flax.linen.Dense`` or ``Conv`` takes.

        Returns:
            As that layer returns, normalized.

        Raises:
            ValueError: the activation is unknown, or a field is out of its range.
        """
        return norm_prop_activation(super().__call__(inputs), self.activation)


@no_type_check  # Flax types fields by protocols that cannot be checked at run time
class NormPropConv(_NormProp, nn.Conv):
    """Convolution, scale and bias, and activation, normalized without statistics.

    ::

        z = scale_f * (w_f * x) / |w_f| + bias_f
        y = (max(0, z) - c1) / c2         c1 = sqrt(1 / (2 pi)), c2 = sqrt((1 - 1 / pi) / 2)

    with |w_f| the norm over all weights of output map f, inside the differentiated graph, and c1,
    c2 the mean and standard deviation of max(0, Z) for a standard normal Z: constants, which do not
    follow scale and bias. Fed with inputs of zero mean and unit variance (``dataset_stats``), every
    layer's output is about so too. There are no batch statistics: training and inference are the
    same function, any batch size will do, and nothing crosses devices. It is an approximation:
    inputs are taken to be Gaussian and uncorrelated; zeros at the border have less variance.

    Scale starts at 1 / 1.21, where the rms singular value of the layer's Jacobian is 1
    (``norm_prop_gain``). Norm, constants, scale, bias and 1.21 are the paper's (its own
    code is not public; the starting value of scale is remembered, not read), ``activation``,
    ``epsilon`` and the constants of other activations this library's.

    All fields of ``flax.linen.Conv``, then three of its own.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.norm_prop import NormPropConv
        >>> x = jax.random.normal(jax.random.key(0), (1, 32, 32, 16))
        >>> y, variables = NormPropConv(64, (3, 3)).init_with_output(jax.random.key(1), x)
        >>> jax.tree.map(jnp.shape, variables)
        {'params': {'bias': (64,), 'kernel': (3, 3, 16, 64), 'scale': (64,)}}

    Attributes:
        activation: "relu", "sigmoid", or None for z itself.
        scale_init: initializer of scale; None: 1 / gain of the activation.
        epsilon: added to the squared norm, for filters of zeros.

    References:
        Devansh Arpit, Yingbo Zhou, Bhargava Kota and Venu Govindaraju, `Normalization Propagation:
        A Parametric Technique for Removing Internal Covariate Shift in Deep Networks
        <https://arxiv.org/abs/1603.01431>`_, ICML 2016.
    """


@no_type_check  # Flax types fields by protocols that cannot be checked at run time
class NormPropDense(_NormProp, nn.Dense):
    """Dense layer, scale and bias, and activation, normalized without statistics.

    As ``NormPropConv``; the weights of a unit are its filter.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.norm_prop import NormPropDense
        >>> y, variables = NormPropDense(8).init_with_output(jax.random.key(0), jnp.ones((1, 4)))
        >>> jax.tree.map(jnp.shape, variables)
        {'params': {'bias': (8,), 'kernel': (4, 8), 'scale': (8,)}}

    Attributes:
        activation: "relu", "sigmoid", or None for z itself.
        scale_init: initializer of scale; None: 1 / gain of the activation.
        epsilon: added to the squared norm, for units of zeros.
    """


def norm_prop_avg_pool(
    x: Float[Array, "..."], window_shape: Sequence[int], strides: Sequence[int] | None = None
) -> Float[Array, "..."]:
    """Average pooling, normalized: times sqrt(number of values in the window).

    Args:
        x: input, (n, ..., channels), of zero mean and unit variance.
        window_shape: size of the window.
        strides: by default 1 in every direction. There is no padding: zeros have no variance.

    Returns:
        The pooled input, of unit variance where positions are independent.

    Example:
        >>> import jax.numpy as jnp
        >>> norm_prop_avg_pool(jnp.ones((1, 2, 2, 1)), (2, 2)).item()
        2.0
    """
    return nn.avg_pool(x, tuple(window_shape), strides) * math.prod(window_shape) ** 0.5


def norm_prop_max_pool(
    x: Float[Array, "..."], window_shape: Sequence[int], strides: Sequence[int] | None = None
) -> Float[Array, "..."]:
    """Max-pooling, normalized by ``max_pool_moments``.

    Args:
        x: input, (n, ..., channels), of zero mean and unit variance.
        window_shape: size of the window.
        strides: by default 1 in every direction. There is no padding: zeros have no variance.

    Returns:
        The pooled input, of zero mean and unit variance where positions are independent.

    Example:
        >>> import jax.numpy as jnp
        >>> norm_prop_max_pool(jnp.ones((1, 4, 4, 3)), (2, 2), (2, 2)).shape
        (1, 2, 2, 3)
    """
    mean, std = max_pool_moments(math.prod(window_shape))
    return (nn.max_pool(x, tuple(window_shape), strides) - mean) / std
