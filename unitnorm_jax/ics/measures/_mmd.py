"""Maximum mean discrepancy with a Gaussian kernel."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.ics.distances import _rounding
from unitnorm_jax.ics.distances._compiled import compiled
from unitnorm_jax.ics.distances._cost import cost_matrix
from unitnorm_jax.ics.distances._samples import check_samples


class MMD(NamedTuple):
    """The squared maximum mean discrepancy; no unit, for the kernel has none."""

    value: Float[Array, ""]
    """Unbiased estimate of ``MMD^2``: 0 on average where the distributions are the same, so it may
    be negative."""
    standard_error: Float[Array, ""]
    """Of the value, by the jackknife: where nothing moves, about sqrt(2) times too large."""
    bandwidth: Float[Array, ""]
    """sigma of the kernel, in the unit of the samples."""


def mmd(
    x: Shaped[Array | np.ndarray, "n ..."],
    y: Shaped[Array | np.ndarray, "n ..."],
    *,
    bandwidth: float | Float[Array, ""] | None = None,
) -> MMD:
    """Return the squared maximum mean discrepancy of paired samples, with its standard error.

    With ``k(a, b) = exp(-|a - b|^2 / (2 sigma^2))`` and z_i = (x_i, y_i)::

        h(z_i, z_j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)
        MMD^2       = mean of h over the n (n - 1) pairs i != j

    It asks only that the pairs are independent of each other: x_i and y_i may depend on each other,
    as a layer's outputs for one image before and after an update do.

    In float32 kernel values are right to about 1e-7, and so is the mean: a small drift of relative
    size r gives about r^2, which is lost below r = 3e-4, where W1 keeps its digits.

    Args:
        x: Outputs before the update, (n, ...), n >= 3.
        y: Outputs after it, of the same shape, paired with them.
        bandwidth: sigma, in the unit of the samples. Default: `median_bandwidth`.

    Returns:
        Estimate, its standard error, and the bandwidth used. NaN where samples are not finite.

    Raises:
        ValueError: If shapes differ, or there are fewer than 3 samples.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jax.random.normal(jax.random.key(0), (64, 8))
        >>> d = mmd(x, x + 0.5)
        >>> bool(d.value > 5 * d.standard_error)
        True

    References:
        A. Gretton, K. Borgwardt, M. Rasch, B. Schoelkopf, A. Smola, A kernel two-sample test, JMLR
        13, 2012: lemma 6, and the median heuristic of section 8. The jackknife: B. Efron, C. Stein,
        The jackknife estimate of variance, 1981.
    """
    if x.shape != y.shape or x.shape[:1] < (3,):
        raise ValueError(
            f"`x` (=shape {x.shape}) and `y` (=shape {y.shape}) must be at least 3 paired samples "
            "of one shape; give the same inputs' outputs before and after."
        )
    check_samples(x, y)
    return _mmd(x, y, bandwidth)


def median_bandwidth(
    x: Shaped[Array | np.ndarray, "n ..."], y: Shaped[Array | np.ndarray, "m ..."]
) -> Float[Array, ""]:
    """Return the median distance between two of the samples of x and y together.

    Args:
        x: Samples, (n, ...).
        y: Samples, (m, ...), the same trailing shape.

    Returns:
        The median over all (n + m) (n + m - 1) / 2 pairs, in the unit of the samples.

    Raises:
        ValueError: If shapes do not match or samples are empty or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> median_bandwidth(jnp.array([0.0, 1.0]), jnp.array([3.0]))  # distances 1, 2, 3
        Array(2., dtype=float32)

    References:
        A. Gretton and others, A kernel two-sample test, JMLR 13, 2012, section 8.
    """
    check_samples(x, y)
    return _median(x, y)


def distances_of(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the distances of (x, x), (y, y) and (x, y)."""
    dtype = _rounding.working_dtype(x, y)
    x, y = (jnp.asarray(z).reshape(z.shape[0], -1).astype(dtype) for z in (x, y))
    return cost_matrix(x, x), cost_matrix(y, y), cost_matrix(x, y)


def kernel(distances: jax.Array, bandwidth: Any) -> jax.Array:
    """Return the Gaussian kernel of distances; for bandwidth 0, whether they are 0."""
    ratio = jnp.where(distances == 0, 0, distances / bandwidth)
    return jnp.exp(-jnp.square(ratio) / 2)


def median_of(within_x: jax.Array, within_y: jax.Array, between: jax.Array) -> jax.Array:
    """Return the median of each pair's distance once."""
    inner = [z[np.triu_indices(z.shape[0], 1)] for z in (within_x, within_y)]
    return jnp.median(jnp.concatenate([*inner, between.reshape(-1)]))


def _mmd_of(x: Array, y: Array, bandwidth: Any) -> MMD:
    xx, yy, xy = distances_of(x, y)
    sigma = median_of(xx, yy, xy) if bandwidth is None else jnp.asarray(bandwidth, xx.dtype)
    kxx, kyy, kxy = (kernel(z, sigma) for z in (xx, yy, xy))
    n = x.shape[0]
    # Close kernels are subtracted first: their sums would lose what is left.
    h = (kxx - kxy) + (kyy - kxy.T)
    rows = jnp.where(jnp.eye(n, dtype=bool), 0, h).sum(1)
    value = rows.sum() / (n * (n - 1))
    # What leaving out sample i makes of the value, less the value.
    without = 2 * (value - rows / (n - 1)) / (n - 2)
    error = jnp.sqrt((n - 1) / n * jnp.square(without - without.mean()).sum())
    return MMD(value, error, sigma)


def _median_of_samples(x: Array, y: Array) -> jax.Array:
    return median_of(*distances_of(x, y))


_mmd, _median = compiled(_mmd_of), compiled(_median_of_samples)
