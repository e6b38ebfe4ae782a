"""Per-coordinate W1, and the lower bound that the coordinates together give."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.ics.distances import _rounding, _samples
from unitnorm_jax.ics.distances._compiled import compiled
from unitnorm_jax.ics.distances._line import line_em_distance, line_error
from unitnorm_jax.ics.distances._samples import Given, Samples, given


class CoordinateEMDistance(NamedTuple):
    """W1 of every coordinate, and what they prove about the whole."""

    distances: Float[Array, "*d"]
    """W1 of each coordinate's marginal distributions."""
    lower: Float[Array, ""]
    """No more than W1 of the vectors, rounding included: their Euclidean norm."""


def coordinate_em_distance(
    x: Shaped[Array | np.ndarray, "n ..."], y: Shaped[Array | np.ndarray, "m ..."]
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
    return _coordinates(given(x, y))


def together(s: Samples, distances: jax.Array) -> jax.Array:
    """Return the lower bound, from W1 of every coordinate."""
    (n, d), m, dtype = s.x.shape, s.y.shape[0], s.x.dtype
    norm = jnp.sqrt(_rounding.tree_sum(jnp.square(distances)))
    units = _rounding.tree_depth(d) / 2 + 8
    slack = norm * (line_error(n, m, dtype) + units * _rounding.unit_roundoff(dtype))
    return _samples.lower_bound(s, norm, slack + _samples.underflow(d, dtype))


def _coordinate_distances(pair: Given) -> CoordinateEMDistance:
    s = _samples.prepare(pair)
    distances = line_em_distance(s.x, s.y)
    lower = together(s, distances)
    distances = _rounding.times_power_of_two(distances, -s.exponent).reshape(pair.x.shape[1:])
    return CoordinateEMDistance(distances, lower)


_coordinates = compiled(_coordinate_distances)
