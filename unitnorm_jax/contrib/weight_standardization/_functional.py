"""Weight standardization as a pure function."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from unitnorm_jax.functional._numerics import arguments
from unitnorm_jax.functional._numerics.axes import filter_axes
from unitnorm_jax.functional._numerics.scaling import centred, power_of_two

PLACEMENTS = ("variance", "std")


def weight_standardization(
    kernel: Float[Array, "..."],
    *,
    epsilon: float = 1e-5,
    epsilon_added_to: str = "variance",
    feature_axes: int | Sequence[int] = -1,
) -> Float[Array, "..."]:
    r"""Standardize every filter of a kernel: mean 0 and (unbiased) variance 1 over its weights.

    With i running over the M weights of the filter of output f (all axes but ``feature_axes``)::

        mean_f = average_i w_if,   var_f = sum_i (w_if - mean_f)^2 / (M - 1)
        w_if  <- (w_if - mean_f) / sqrt(var_f + epsilon)        epsilon_added_to="variance"
        w_if  <- (w_if - mean_f) / (sqrt(var_f) + epsilon)      epsilon_added_to="std"

    Gradients flow through mean and variance. The published code has both placements of epsilon:
    "variance" in its ImageNet layers, "std" in its DeepLab layers and in the README of
    WeightStandardization; the variance is unbiased in all of them. Derived here: a constant filter
    gives exactly 0 and a finite gradient, at epsilon = 0 too (a plain square root's is not a number
    there); small variances about a large mean keep their digits; and a filter of one weight, 0/0 in
    the published code, is refused.

    Args:
        kernel: (..., features), as Flax's kernels are.
        epsilon: see above.
        epsilon_added_to: "variance" or "std".
        feature_axes: the axis or axes of the outputs.

    Returns:
        The standardized kernel, of the same shape and dtype; half precision is computed in float32.

    Raises:
        ValueError: an argument is out of its range, or a filter has one weight.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.weight_standardization import weight_standardization
        >>> kernel = 3 + jax.random.normal(jax.random.key(0), (3, 3, 4, 8))
        >>> standardized = weight_standardization(kernel)
        >>> bool(jnp.allclose(standardized.mean((0, 1, 2)), 0, atol=1e-6))
        True

    References:
        Siyuan Qiao, Huiyu Wang, Chenxi Liu, Wei Shen and Alan Yuille, `Micro-Batch Training with
        Batch-Channel Normalization and Weight Standardization <https://arxiv.org/abs/1903.10520>`_,
        2019. Code: joe-siyuan-qiao/Batch-Channel-Normalization and WeightStandardization.
    """
    if epsilon_added_to not in PLACEMENTS:
        raise ValueError(
            f"`epsilon_added_to` (={epsilon_added_to!r}) must be one of "
            f"{', '.join(map(repr, PLACEMENTS))}."
        )
    arguments.check_epsilon(epsilon)
    kernel = arguments.as_floating(kernel)
    reduced = filter_axes(kernel.shape, feature_axes)
    weights = math.prod(kernel.shape[i] for i in reduced)
    if weights < 2:
        raise ValueError(
            f"A kernel of shape {kernel.shape} has one weight per filter, whose variance is not "
            "defined: standardize the weights of layers with more than one input."
        )
    w = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    z, _, size = centred(w, reduced)
    # In units of the largest weight squares do not overflow; where they would underflow beside
    # epsilon, in larger ones.
    if epsilon < jnp.finfo(w.dtype).tiny:
        epsilon = 0.0  # as it would be beside the variance
    power = 0.5 if epsilon_added_to == "variance" else 1.0
    most = 2.0 ** -math.ceil(power * math.log2(epsilon)) if epsilon > 0 else math.inf
    factor = power_of_two(size, most)
    z = z * factor
    var = jnp.square(z).sum(reduced, keepdims=True) / (weights - 1)
    # Compared by ==, for NaN to stay.
    if epsilon_added_to == "variance":
        var = var + epsilon * factor * factor
        # Without epsilon, a constant filter is 0 rather than 0/0.
        return (z * lax.rsqrt(jnp.where(var == 0, 1, var))).astype(kernel.dtype)
    constant = var == 0
    std = jnp.where(constant, 0, jnp.sqrt(jnp.where(constant, 1, var))) + epsilon * factor
    return (z / jnp.where(std == 0, 1, std)).astype(kernel.dtype)
