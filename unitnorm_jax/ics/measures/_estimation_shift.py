"""How far running statistics are from those of the data."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.ics.distances import _rounding
from unitnorm_jax.ics.distances._compiled import compiled
from unitnorm_jax.ics.measures._channels import by_channel, moments


class EstimationShift(NamedTuple):
    """Distance of running statistics from those of the inputs, over channels."""

    mean: Float[Array, ""]
    """``sqrt( sum_c (running mean_c - mean_c)^2 )``."""
    std: Float[Array, ""]
    """``sqrt( sum_c (running std_c - std_c)^2 )``."""


def estimation_shift(
    running_mean: Float[Array | np.ndarray, " c"],
    running_var: Float[Array | np.ndarray, " c"],
    x: Shaped[Array | np.ndarray, "n ..."],
    *,
    axis: int = -1,
) -> EstimationShift:
    """Return how far a layer's running statistics are from those of its inputs at inference.

    ``|mu_running - mu|_2`` and ``|sigma_running - sigma|_2``. The inputs are those that the layer
    sees in mode "eval": earlier layers then use running statistics, too, so that their errors add
    up with depth.

    Args:
        running_mean: The layer's ``mean``.
        running_var: The layer's ``var``.
        x: Its inputs at inference, (n, ...): of the whole set, or of a sample of it.
        axis: The channels'.

    Returns:
        Both norms, in the unit of the inputs.

    Raises:
        ValueError: If statistics and inputs have other numbers of channels, or inputs are empty.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[-1.0, 0.0], [1.0, 4.0]])  # means 0 and 2, deviations 1 and 2
        >>> estimation_shift(jnp.array([3.0, -2.0]), jnp.array([1.0, 4.0]), x)
        EstimationShift(mean=Array(5., dtype=float32), std=Array(0., dtype=float32))

    References:
        L. Huang, Y. Zhou, T. Wang, J. Luo, X. Liu, Delving into the estimation shift of batch
        normalization in a network, CVPR 2022.
    """
    values, _ = by_channel(x, x, axis)
    for name, statistic in (("running_mean", running_mean), ("running_var", running_var)):
        if statistic.shape != values.shape[1:]:
            raise ValueError(
                f"`{name}` (=shape {statistic.shape}) must hold one number per channel of `x`, "
                f"which has {values.shape[1]} along `axis` (={axis}); give the layer's statistics "
                "and inputs."
            )
    return _shift(running_mean, running_var, values)


def _shift_of(running_mean: Array, running_var: Array, x: Array) -> EstimationShift:
    mean, std = moments(x)
    running_mean, running_var = (z.astype(x.dtype) for z in (running_mean, running_var))
    off = running_mean - mean, jnp.sqrt(running_var) - std
    return EstimationShift(*(jnp.sqrt(_rounding.tree_sum(jnp.square(z))) for z in off))


_shift = compiled(_shift_of)
