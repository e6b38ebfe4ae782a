"""How far mean and standard deviation of each channel moved."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.ics.distances._compiled import compiled
from unitnorm_jax.ics.measures._channels import by_channel, moments


class MomentDrift(NamedTuple):
    """Change of two moments per channel, in standard deviations before the update."""

    mean: Float[Array, " c"]
    """``|mean_after - mean_before| / std_before``."""
    std: Float[Array, " c"]
    """``|std_after - std_before| / std_before``."""


def moment_drift(
    x: Shaped[Array | np.ndarray, "n ..."],
    y: Shaped[Array | np.ndarray, "m ..."],
    *,
    axis: int = -1,
) -> MomentDrift:
    """Return how far mean and standard deviation of each channel moved.

    Moments are over samples and positions, as in batch normalization, and biased. This is what is
    plotted most often in the place of a distance; it sees no change of shape, nor of correlation.

    Args:
        x: Outputs before the update, (n, ...).
        y: Outputs after it, (m, ...), the same trailing shape.
        axis: The channels'.

    Returns:
        Two numbers per channel, in units of its standard deviation before the update. A channel
        that was constant has no such unit: 0 where it did not change, else inf. `summary` makes
        one number of all channels.

    Raises:
        ValueError: If shapes do not match, or samples are empty or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[-1.0, 0.0], [1.0, 4.0]])
        >>> moment_drift(x, 2 * x)
        MomentDrift(mean=Array([0., 1.], dtype=float32), std=Array([1., 1.], dtype=float32))
    """
    return _drift(*by_channel(x, y, axis))


def _drift_of(x: Array, y: Array) -> MomentDrift:
    # Both about one row, so that a common offset costs no digits.
    (mean, std), (mean_after, std_after) = moments(x - x[:1]), moments(y - x[:1])

    def in_stds(change: Array) -> Array:
        return jnp.where(change == 0, 0, jnp.abs(change) / std)

    return MomentDrift(in_stds(mean_after - mean), in_stds(std_after - std))


_drift = compiled(_drift_of)
