"""Weights of samples under which they resemble other samples."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Shaped
from scipy.linalg import LinAlgError, cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import lsq_linear
from scipy.spatial.distance import cdist, pdist

from unitnorm_jax.ics.distances._samples import check_samples

_RIDGE = 1e-10  # on the kernel matrix, whose rows may coincide
_SUM = 1e3  # weight of the row that says that weights add up to 1


class KernelWeights(NamedTuple):
    """Weights of samples, and how far they go."""

    weights: Float[np.ndarray, " n"]
    """One per sample of x; nonnegative, their sum is 1."""
    effective_sample_size: float
    """``1 / sum_i w_i^2``: n for equal weights; few where x hardly resembles y."""
    mmd: float
    """The biased ``MMD^2`` that is left with these weights."""
    residual: float
    """How far the weights are from optimal: by how much one of them would change if it followed
    the gradient, within the limits (0 where the conditions of Karush, Kuhn and Tucker hold)."""


def kernel_mean_matching(
    x: Shaped[Array | np.ndarray, "n ..."],
    y: Shaped[Array | np.ndarray, "m ..."],
    *,
    bandwidth: float | None = None,
    limit: float = 1000.0,
) -> KernelWeights:
    """Weight the samples x so that they resemble y: the weights that minimise MMD.

    ``min_w | sum_i w_i phi(x_i) - mean_j phi(y_j) |^2``, ``0 <= w_i <= limit / n``, ``sum w = 1``,
    with phi the features of the Gaussian kernel: a quadratic program, solved on the host in float64
    by an active set (scipy's bounded least squares).

    Args:
        x: Samples before the update, (n, ...).
        y: Samples after it, (m, ...), the same trailing shape.
        bandwidth: sigma of the kernel. Default: `median_bandwidth`.
        limit: The largest weight, as a multiple of 1/n; at least 1.

    Returns:
        The weights, and the effective sample size; numpy arrays in float64. It calls nothing of
        JAX, so that a ``jax.pure_callback`` may call it.

    Raises:
        ValueError: If shapes do not match, samples are not finite, or the limit is less than 1.

    Example:
        >>> import numpy as np
        >>> x = np.array([[0.0], [1.0], [10.0]])
        >>> weights = kernel_mean_matching(x, x[:2]).weights  # leaves the third out
        >>> weights.round(3) + 0.0
        array([0.5, 0.5, 0. ])

    References:
        J. Huang, A. Smola, A. Gretton, K. Borgwardt, B. Schoelkopf, Correcting sample selection
        bias by unlabeled data, NIPS 2006. There the sum may differ from 1 a little; here it may
        not.
    """
    x, y = np.asarray(x), np.asarray(y)
    check_samples(x, y)
    if not limit >= 1:
        raise ValueError(f"`limit` (={limit}) must be at least 1: weights of 1/n add up to 1.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("`x` and `y` must be finite, but hold NaN or inf; look at the layer.")
    x, y = (z.reshape(len(z), -1).astype(np.float64) for z in (x, y))
    sigma = np.median(pdist(np.concatenate([x, y]))) if bandwidth is None else bandwidth
    kxx, kyy, kxy = (_kernel(a, b, sigma) for a, b in ((x, x), (y, y), (x, y)))
    target = kxy.mean(1)
    weights = _minimise(kxx, target, limit / len(x))
    left = weights @ kxx @ weights - 2 * weights @ target + kyy.mean()
    moved = project(weights - (kxx @ weights - target), limit / len(x))
    residual = np.abs(moved - weights).max()
    size = 1 / np.square(weights).sum()
    return KernelWeights(weights, float(size), max(float(left), 0.0), float(residual))


def _kernel(x: np.ndarray, y: np.ndarray, bandwidth: float) -> np.ndarray:
    """Return the kernel of `mmd`; for bandwidth 0, whether points coincide."""
    distances = cdist(x, y)
    with np.errstate(divide="ignore"):
        ratio = np.divide(distances, bandwidth, where=distances > 0, out=np.zeros_like(distances))
    return np.exp(-np.square(ratio) / 2)


def project(v: np.ndarray, most: float) -> np.ndarray:
    """Return the closest point with entries between 0 and ``most`` whose sum is 1, by bisection."""
    low, high = v.min() - most - 1, v.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(v - middle, 0, most).sum() > 1 else (low, middle)
    return np.clip(v - high, 0, most)


def _minimise(k: np.ndarray, target: np.ndarray, most: float) -> np.ndarray:
    """Minimise ``w k w / 2 - target w``: an active set, and on its free weights the equations."""
    n = len(k)
    if most * n <= 1:  # a limit of 1: there is one choice
        return np.full(n, 1 / n)
    factor = cholesky(k + _RIDGE * np.eye(n))
    rows = np.concatenate([factor, np.full((1, n), _SUM)])
    right = np.append(solve_triangular(factor, target, trans="T"), _SUM)
    found = lsq_linear(rows, right, (0, most), method="bvls")
    weights = project(found.x, most)
    free = found.active_mask == 0
    if not free.any():
        return weights
    # The sum is exact once the free weights solve their equations with a multiplier for it.
    fixed = np.where(free, 0, np.where(found.active_mask > 0, most, 0))
    try:
        inverse = cho_factor(k[np.ix_(free, free)] + _RIDGE * np.eye(free.sum()))
    except LinAlgError:
        return weights
    at_most, ones = (
        cho_solve(inverse, z) for z in ((target - k @ fixed)[free], np.ones(free.sum()))
    )
    polished = fixed.copy()
    polished[free] = at_most - ones * (at_most.sum() + fixed.sum() - 1) / ones.sum()
    return polished if (polished >= 0).all() and (polished <= most).all() else weights
