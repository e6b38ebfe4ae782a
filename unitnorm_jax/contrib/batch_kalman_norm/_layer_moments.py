"""Moments of the output of linen layers: predictions of Batch Kalman Normalization."""

from typing import Any

import flax.linen as nn

from unitnorm_jax.contrib.batch_kalman_norm._linear_moments import linear_moments
from unitnorm_jax.contrib.batch_kalman_norm._moments import Moments


def layer_moments(layer: nn.Module, moments: Moments, input_shape: tuple[int, ...] = ()) -> Moments:
    """Moments of the output of an ``nn.Dense`` or ``nn.Conv`` whose inputs are independent.

    ``linear_moments`` with the layer's own weights, strides and padding. Call it after
    the layer, inside the model, so that the weights exist.

    Args:
        layer: bound module of the model; a convolution without groups and dilation.
        moments: of the layer's input, (slices, c_in).
        input_shape: shape of the layer's input, (n, *positions, c_in); not looked at for Dense.

    Returns:
        Moments of the layer's output, (slices, c_out).

    Raises:
        ValueError: the layer is of another kind, or shapes do not fit.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.batch_kalman_norm import Moments
        >>> from unitnorm_jax.contrib.batch_kalman_norm import layer_moments
        >>> class Net(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x, moments):
        ...         conv = nn.Conv(4, (3, 3))
        ...         return conv(x), layer_moments(conv, moments, x.shape)
        >>> moments = Moments(mean=jnp.zeros((1, 3)), var=jnp.ones((1, 3)))
        >>> (y, out), _ = Net().init_with_output(jax.random.key(0), jnp.ones((2, 5, 5, 3)), moments)
        >>> out.mean.shape
        (1, 4)
    """
    # Not isinstance: a subclass may use other weights than those it stores.
    if type(layer) is nn.Dense:
        params = layer.variables["params"]
        return linear_moments(moments, params["kernel"], params.get("bias"))
    plain = (None, 1)
    if (
        type(layer) is not nn.Conv
        or layer.feature_group_count != 1
        or layer.mask is not None
        or any(d not in plain for d in _sequence(layer.input_dilation))
        or any(d not in plain for d in _sequence(layer.kernel_dilation))
        or layer.padding in ("CIRCULAR", "REFLECT", "CAUSAL")
    ):
        raise ValueError(
            f"`layer` ({type(layer).__name__}) must be an nn.Dense, or an nn.Conv without groups, "
            "dilation and mask that pads with zeros: for others use sampled_moments, "
            "which takes any layer."
        )
    params = layer.variables["params"]
    window = params["kernel"].ndim - 2
    return linear_moments(
        moments,
        params["kernel"],
        params.get("bias"),
        spatial_shape=input_shape[-1 - window : -1],
        strides=tuple(s or 1 for s in _sequence(layer.strides, window)),
        padding=_padding(layer.padding, window),
    )


def _sequence(value: Any, length: int = 1) -> tuple[Any, ...]:
    return (value,) * length if value is None or isinstance(value, int) else tuple(value)


def _padding(padding: Any, window: int) -> str | tuple[tuple[int, int], ...]:
    if isinstance(padding, str):
        return padding
    pairs = (padding,) * window if isinstance(padding, int) else tuple(padding)
    return tuple((p, p) if isinstance(p, int) else (p[0], p[1]) for p in pairs)
