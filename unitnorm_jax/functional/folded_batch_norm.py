"""Batch normalization folded into the weights before it, and the penalty it implies on them.

A unit u = w'x behind batch normalization computes gamma (u - E u) / sd(u) + beta. That is v'x + b
with the folded weights v = gamma w / sqrt(w' Sigma w), Sigma = Cov x; and whatever w is,

    v' Sigma v = gamma^2.

So training w with batch normalization is training v under this constraint: a penalty
lambda v' Sigma v on the loss L of a network without it, whose coefficient the data choose. Where
w is stationary, grad L + 2 lambda Sigma v = 0, and hence lambda = -v' grad L / (2 gamma^2).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unitnorm_jax.functional._arguments import check_epsilon, check_features, filter_axes
from unitnorm_jax.functional._scaling import power_of_two


class FoldedWeights(NamedTuple):
    """A Dense or Conv layer that computes what one with batch normalization behind it does.

    Attributes:
      kernel: (..., in, units), or as the kernel that was folded.
      bias: (units,).
    """

    kernel: Float[Array, "..."]
    bias: Float[Array, "..."]


class ImpliedPenalty(NamedTuple):
    """Coefficients of penalties under which the folded weights are what they are, per unit.

    Attributes:
      multiplier: lambda of the penalty ``lambda v' Sigma v``.
      weight_decay: that of the penalty ``lambda |v|^2`` with the same pull along v.
    """

    multiplier: Float[Array, "..."]
    weight_decay: Float[Array, "..."]


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
    r"""The layer without batch normalization that computes the same.

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
      feature_axes: axes of the kernel that are the units, in the order of the statistics' axes: -2
        for ``nn.ConvTranspose(transpose_kernel=True)``, whose kernel is (..., units, in); several
        for ``nn.DenseGeneral`` and ``nn.Einsum`` with as many feature axes of the normalization.

    Returns:
      The folded kernel and bias.

    Raises:
      ValueError: shapes do not fit, or epsilon is out of its range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from unitnorm_jax.functional import fold_batch_norm
      >>> x = jax.random.normal(jax.random.key(0), (100, 3)) @ jnp.diag(jnp.array([1.0, 2.0, 3.0]))
      >>> kernel = jax.random.normal(jax.random.key(1), (3, 2))
      >>> u = x @ kernel
      >>> folded = fold_batch_norm(kernel, u.mean(0), u.var(0), jnp.array([1.0, 5.0]), epsilon=0.0)
      >>> sigma = jnp.cov(x.T, bias=True)
      >>> [round(float(v @ sigma @ v), 4) for v in folded.kernel.T]
      [1.0, 25.0]
    """
    check_epsilon(epsilon)
    axes, units = _units(kernel, feature_axes)
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


def implied_penalty(
    folded_kernel: Float[Array, "..."],
    gradient: Float[Array, "..."],
    scale: Float[Array, "..."] | None = None,
    *,
    feature_axes: int | Sequence[int] = -1,
) -> ImpliedPenalty:
    r"""The penalty on the folded weights that batch normalization amounts to.

    For every unit, with the gradient of the loss (as a function of the folded weights, without
    batch normalization)::

        multiplier   = -v' grad / (2 scale^2)
        weight_decay = -v' grad / (2 |v|^2)

    Where the weights before the normalization are stationary, ``grad + 2 multiplier Sigma v = 0``
    holds for all of v; for an isotropic Sigma = s^2 I, weight_decay = multiplier s^2. Noise of
    variance t^2 on the inputs adds multiplier t^2 to it: the noisier the data, the more decay.
    Where a trained scale is stationary as well, both are 0: BN then constrains v no longer.

    Args:
      folded_kernel: v, (..., in, units), as ``fold_batch_norm`` returns.
      gradient: of the loss with respect to it, of the same shape.
      scale: of the normalization (default: 1).
      feature_axes: as in ``fold_batch_norm``.

    Returns:
      Both coefficients, per unit; positive where the loss asks for larger weights.

    Raises:
      ValueError: shapes do not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from unitnorm_jax.functional import implied_penalty
      >>> v = jnp.array([[1.0], [2.0]])
      >>> implied = implied_penalty(v, jnp.array([[-4.0], [-3.0]]))
      >>> float(implied.multiplier[0]), float(implied.weight_decay[0])
      (5.0, 1.0)

    References:
      Lakshmi Annamalai and Chetan Singh Thakur, `Theoretical Insight into Batch Normalization:
      Data Dependant Auto-Tuning of Regularization Rate <https://arxiv.org/abs/2209.07587>`_, 2022.
      That batch normalization is constrained optimization of the weights without it, with a
      regularization that the statistics of the data tune, is the paper's; the constraint, both
      coefficients and the remark on a trained scale are derived here.
    """
    if gradient.shape != folded_kernel.shape:
        raise ValueError(
            f"`gradient` has shape {gradient.shape}; it must be that of `folded_kernel`: "
            f"{folded_kernel.shape}."
        )
    axes, units = _units(folded_kernel, feature_axes)
    if scale is not None:
        check_features("scale", scale, units)
    v, g = (
        jnp.moveaxis(a.astype(jnp.promote_types(a.dtype, jnp.float32)), axes, range(len(axes)))
        for a in (folded_kernel, gradient)
    )
    over = tuple(range(len(axes), v.ndim))
    # In units of the largest weight squares neither overflow nor underflow.
    factor = power_of_two(jnp.abs(v).max(over))
    v = v * factor.reshape(*factor.shape, *(1 for _ in over))
    pull = -jnp.sum(v * g, over) / 2
    squared_norm = jnp.sum(jnp.square(v), over)
    if scale is None:
        scale = jnp.ones_like(pull)

    def quotient(divisor: jax.Array, value: jax.Array) -> jax.Array:
        """A unit that is 0 is pulled nowhere; compared by ==, for NaN to stay."""
        return jnp.where(divisor == 0, 0, value / jnp.where(divisor == 0, 1, divisor))

    return ImpliedPenalty(
        multiplier=quotient(scale, quotient(scale, pull / factor)),
        weight_decay=quotient(squared_norm, pull) * factor,
    )


def _units(
    kernel: jax.Array, feature_axes: int | Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of the units, in the order given and counted from 0, and their sizes."""
    filter_axes(kernel.shape, feature_axes)
    named = feature_axes if isinstance(feature_axes, Sequence) else (feature_axes,)
    axes = tuple(axis % kernel.ndim for axis in named)
    return axes, tuple(kernel.shape[axis] for axis in axes)


def _along(value: jax.Array, axes: Sequence[int], ndim: int) -> jax.Array:
    """An array of the units, to broadcast with a kernel of ``ndim`` axes."""
    rest = tuple(i for i in range(ndim) if i not in axes)
    value = value.reshape(*value.shape, *(1 for _ in rest))
    return jnp.moveaxis(value, range(ndim), (*axes, *rest))
