"""Per-coordinate W1, and the lower bound that the coordinates together give."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from unitnorm_jax.ics import rounding
from unitnorm_jax.ics.line import line_em_distance, line_error
from unitnorm_jax.ics.samples import as_matrices


class CoordinateEMDistance(NamedTuple):
    """W1 of every coordinate, and what they prove about the whole."""

    distances: Float[Array, "*d"]
    """W1 of each coordinate's marginal distributions."""
    lower: Float[Array, ""]
    """No more than W1 of the vectors, rounding included: their Euclidean norm."""


@jax.jit
def coordinate_em_distance(
    x: Num[Array | np.ndarray, "n ..."], y: Num[Array | np.ndarray, "m ..."]
) -> CoordinateEMDistance:
    """W1 between the marginals of each coordinate, exactly, and a lower bound on W1.

    ``w_k = W1(x_k, y_k)``, by sorting; ``lower = sqrt( sum_k w_k^2 ) <= W1(x, y)``.

    Proof (derived here): under the optimal coupling of the vectors let Z = |X - Y| coordinate by
    coordinate. It couples each pair of marginals, so w_k <= E Z_k, and by Jensen for the
    Euclidean norm ``|(w_k)| <= |E Z| <= E |Z| = W1``. It exceeds ``max_k w_k`` (L4 of the
    coordinates), and is attained by every translation. What a rotation or a change of
    correlation does, it cannot see.

    Args:
      x: Before, (n, ...).
      y: After, (m, ...), the same trailing shape.

    Returns:
      Distances, of the trailing shape; the lower bound, rounded down. NaN where not finite.

    Raises:
      ValueError: If shapes do not match or samples are empty or complex.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.zeros((4, 2))
      >>> d = coordinate_em_distance(x, x + jnp.array([[3.0, 4.0]]))
      >>> d.distances, bool(d.lower <= 5), bool(d.lower > 4.9999)
      (Array([3., 4.], dtype=float32), True, True)

    References:
      S. Vallender, Calculation of the Wasserstein distance between probability distributions
      on the line, 1974. The norm of the coordinates: derived here.
    """
    shape = x.shape[1:]
    x, y = as_matrices(x, y)
    (n, d), m, dtype = x.shape, y.shape[0], x.dtype
    k = rounding.scale_exponent(x, y, d)
    x, y = rounding.times_power_of_two(x, k), rounding.times_power_of_two(y, k)
    distances = line_em_distance(x, y)
    norm = jnp.sqrt(rounding.tree_sum(jnp.square(distances)))
    relative = line_error(n, m, dtype)
    units = rounding.tree_depth(d) / 2 + 8
    lower = jnp.maximum(rounding.nudge(norm * (1 - relative), norm, -units), 0)
    finite = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))
    lower = jnp.where(finite, rounding.times_power_of_two(lower, -k), jnp.nan)
    lower = jnp.minimum(lower, jnp.finfo(dtype).max)
    distances = rounding.times_power_of_two(distances, -k).reshape(shape)
    return CoordinateEMDistance(distances, lower)
