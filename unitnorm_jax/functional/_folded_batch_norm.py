"""Batch normalization folded into the weights before it.

A unit u = w'x before batch normalization becomes gamma (u - E u) / sd(u) + beta. That is v'x + b
with the folded weights v = gamma w / sqrt(w' Sigma w), Sigma = Cov x, so that for any w

    v' Sigma v = gamma^2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unitnorm_jax.functional._numerics.arguments import check_epsilon, check_features
from unitnorm_jax.functional._numerics.axes import unit_axes


class FoldedWeights(NamedTuple):
    """A Dense or Conv layer that computes what one with batch normalization behind it does.

    Attributes:
        kernel: (..., in, units), or as the kernel that was folded.
        bias: (units,).
    """

    kernel: Float[Array, "..."]
    bias: Float[Array, "..."]


def fold_batch_norm(
    kernel: Float[Array, "..."],
    mean: Float[Array, "..."],
    var: Float[Array, "..."],
    scale: Float[Array, "..."] | None = None,
    bias: Float[Array, "..."] | None = None,
    *,
    kernel_bias: Float[Array, "..."] | None = None,
    epsilon: float = 1e-5,
    feature_axes: int | Sequence[int] = -1,
) -> FoldedWeights:
    r"""Return the layer without batch normalization that computes the same.

    For every unit, with the statistics of its output over the population::

        v = scale w / sqrt(var + epsilon)
        b = bias + scale (kernel_bias - mean) / sqrt(var + epsilon)

    With var the variance over a population of covariance Sigma, ``v' Sigma v = scale^2 var / (var
    + epsilon)``: at epsilon = 0 exactly scale^2, whatever the kernel.

    Args:
        kernel: of the layer before the normalization, (..., in, units): Dense, Conv (grouped,
            dilated or transposed, too), or another linear layer, see ``feature_axes``.
        mean: mean of the layer's output, with ``kernel_bias``.
        var: its (biased) variance.
        scale: of the normalization (default: 1).
        bias: of the normalization (default: 0).
        kernel_bias: bias of the layer before it (default: 0).
        epsilon: of the normalization.
        feature_axes: axes of the kernel that are the units, in the order of the statistics' axes:
            -2 for ``nn.ConvTranspose(transpose_kernel=True)``, whose kernel is (..., units, in);
            several for ``nn.DenseGeneral`` and ``nn.Einsum`` with as many feature axes of the
            normalization.

    Returns:
        The folded kernel and bias.

    Raises:
        ValueError: shapes do not fit, or epsilon is out of its range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.functional import fold_batch_norm
        >>> x = jax.random.normal(jax.random.key(0), (100, 3)) @ jnp.diag(jnp.arange(1.0, 4.0))
        >>> kernel = jax.random.normal(jax.random.key(1), (3, 2))
        >>> u = x @ kernel
        >>> scale = jnp.array([1.0, 5.0])
        >>> folded = fold_batch_norm(kernel, u.mean(0), u.var(0), scale, epsilon=0.0)
        >>> sigma = jnp.cov(x.T, bias=True)
        >>> [round(float(v @ sigma @ v), 4) for v in folded.kernel.T]
        [1.0, 25.0]
    """
    check_epsilon(epsilon)
    axes, units = unit_axes(kernel, feature_axes)
    given = {"mean": mean, "var": var, "scale": scale, "bias": bias, "kernel_bias": kernel_bias}
    for name, value in given.items():
        if value is not None:
            check_features(name, value, units)
    values = [value for value in (kernel, *given.values()) if value is not None]
    result_dtype = jnp.result_type(*values)
    wide = jnp.promote_types(result_dtype, jnp.float32)
    mean, var, kernel = (value.astype(wide) for value in (mean, var, kernel))
    slope = (1.0 if scale is None else scale.astype(wide)) / jnp.sqrt(var + epsilon)
    offset = -mean if kernel_bias is None else kernel_bias.astype(wide) - mean
    folded_bias = slope * offset + (0.0 if bias is None else bias.astype(wide))
    folded = kernel * _along(slope, axes, kernel.ndim)
    return FoldedWeights(folded.astype(result_dtype), folded_bias.astype(result_dtype))


def _along(value: jax.Array, axes: Sequence[int], ndim: int) -> jax.Array:
    """Return an array of the units, to broadcast with a kernel of ``ndim`` axes."""
    rest = tuple(i for i in range(ndim) if i not in axes)
    value = value.reshape(*value.shape, *(1 for _ in rest))
    return jnp.moveaxis(value, range(ndim), (*axes, *rest))
