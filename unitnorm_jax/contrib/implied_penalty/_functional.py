"""The penalty on folded weights that batch normalization amounts to.

Batch normalization keeps the folded weights v of a unit on ``v' Sigma v = gamma^2``
(``unitnorm_jax.functional.fold_batch_norm``), Sigma = Cov x. So training w with batch normalization
is training v under this constraint: a penalty lambda v' Sigma v on the loss L of a network without
it, whose coefficient the data choose. Where w is stationary, grad L + 2 lambda Sigma v = 0, and
hence lambda = -v' grad L / (2 gamma^2).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unitnorm_jax.functional._numerics.arguments import check_features
from unitnorm_jax.functional._numerics.axes import unit_axes
from unitnorm_jax.functional._numerics.scaling import power_of_two


class ImpliedPenalty(NamedTuple):
    """Coefficients of penalties under which the folded weights are what they are, per unit.

    Attributes:
        multiplier: lambda of the penalty ``lambda v' Sigma v``.
        weight_decay: that of the penalty ``lambda |v|^2`` with the same pull along v.
    """

    multiplier: Float[Array, "..."]
    weight_decay: Float[Array, "..."]


def implied_penalty(
    folded_kernel: Float[Array, "..."],
    gradient: Float[Array, "..."],
    scale: Float[Array, "..."] | None = None,
    *,
    feature_axes: int | Sequence[int] = -1,
) -> ImpliedPenalty:
    r"""Return the penalty on the folded weights that batch normalization amounts to.

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
        >>> from unitnorm_jax.contrib.implied_penalty import implied_penalty
        >>> v = jnp.array([[1.0], [2.0]])
        >>> implied = implied_penalty(v, jnp.array([[-4.0], [-3.0]]))
        >>> float(implied.multiplier[0]), float(implied.weight_decay[0])
        (5.0, 1.0)

    References:
        Lakshmi Annamalai and Chetan Singh Thakur, `Theoretical Insight into Batch Normalization:
        Data Dependant Auto-Tuning of Regularization Rate <https://arxiv.org/abs/2209.07587>`_,
        2022. That batch normalization is constrained optimization of the weights without it, with a
        regularization that the statistics of the data tune, is the paper's; the constraint, both
        coefficients and the remark on a trained scale are derived here.
    """
    if gradient.shape != folded_kernel.shape:
        raise ValueError(
            f"`gradient` has shape {gradient.shape}; it must be that of `folded_kernel`: "
            f"{folded_kernel.shape}."
        )
    axes, units = unit_axes(folded_kernel, feature_axes)
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
        """Return value / divisor, 0 where that is 0: such a unit is not pulled; NaN stays."""
        return jnp.where(divisor == 0, 0, value / jnp.where(divisor == 0, 1, divisor))

    return ImpliedPenalty(
        multiplier=quotient(scale, quotient(scale, pull / factor)),
        weight_decay=quotient(squared_norm, pull) * factor,
    )
