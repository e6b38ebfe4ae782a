"""W1 of each channel."""

import numpy as np
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.ics.distances._coordinate import coordinate_em_distance
from unitnorm_jax.ics.measures._channels import by_channel


def channel_em_distance(
    x: Shaped[Array | np.ndarray, "n ..."],
    y: Shaped[Array | np.ndarray, "m ..."],
    *,
    axis: int = -1,
) -> Float[Array, " c"]:
    """Return W1 of each channel, exactly: samples and positions are its values.

    ``W1(x_c, y_c) = integral_0^1 |F_c^-1(t) - G_c^-1(t)| dt``, by sorting. `coordinate_em_distance`
    measures each position of a channel apart; this takes positions for samples, as batch
    statistics do.

    Args:
        x: Outputs before the update, (n, ...).
        y: Outputs after it, (m, ...), the same trailing shape.
        axis: The channels'.

    Returns:
        A distance per channel, in the unit of the outputs; `summary` makes one number of them.

    Raises:
        ValueError: If shapes do not match, or samples are empty or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.zeros((2, 5, 3))  # 2 samples, 5 positions, 3 channels
        >>> channel_em_distance(x, x + jnp.array([1.0, 2.0, 3.0])[None, None, :])
        Array([1., 2., 3.], dtype=float32)

    References:
        S. Vallender, Calculation of the Wasserstein distance between probability distributions
        on the line, 1974.
    """
    return coordinate_em_distance(*by_channel(x, y, axis)).distances
