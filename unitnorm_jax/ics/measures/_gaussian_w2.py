"""The 2-Wasserstein distance of the normal distributions with two samples' moments."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.ics.distances import _rounding
from unitnorm_jax.ics.distances._compiled import compiled
from unitnorm_jax.ics.distances._samples import check_samples


def gaussian_w2(
    x: Shaped[Array | np.ndarray, "n ..."], y: Shaped[Array | np.ndarray, "m ..."]
) -> Float[Array, ""]:
    """Return W2 between the normal distributions that have the samples' means and covariances.

    ``W2^2 = |m_x - m_y|^2 + tr S_x + tr S_y - 2 tr (S_x^1/2 S_y S_x^1/2)^1/2``

    With ``S_x = A^T A`` and ``S_y = B^T B`` (A, B the centered samples over sqrt(n), sqrt(m), or
    their triangular factors) the last term is twice the nuclear norm of ``A B^T``, for any d and n.
    The sum of the last three is computed as ``min |A - U B|^2`` over orthogonal U, which the
    singular vectors of ``A B^T`` attain: a sum of squares, so that a small drift keeps its digits
    (derived here). It is at most the W2 of the samples; it sees means and covariances alone.

    Args:
        x: Outputs before the update, (n, ...).
        y: Outputs after it, (m, ...), the same trailing shape.

    Returns:
        The distance, not squared, in the unit of the samples; NaN where they are not finite.
        Covariances are biased (over n). An error of about 1e-6 of the samples' norms in float32.
        Time: a singular value decomposition of size min(d, max(n, m)).

    Raises:
        ValueError: If shapes do not match or samples are empty or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[-1.0, 0.0], [1.0, 0.0]])
        >>> round(float(gaussian_w2(x, 3 * x)), 5)  # N(0, 1) and N(0, 9) along one axis
        2.0

    References:
        M. Gelbrich, On a formula for the L2 Wasserstein metric between measures on Euclidean and
        Hilbert spaces, 1990.
    """
    check_samples(x, y)
    return _w2(x, y)


def _w2_of(x: Array, y: Array) -> jax.Array:
    dtype = _rounding.working_dtype(x, y)
    x, y = (jnp.asarray(z).reshape(z.shape[0], -1).astype(dtype) for z in (x, y))
    x, y = x - x[:1], y - x[:1]  # about one row, so that a common offset costs no digits
    means = x.mean(0), y.mean(0)
    size = max(x.shape[0], y.shape[0])

    def factor(z: jax.Array, mean: jax.Array) -> jax.Array:
        """S = factor^T factor, of as few rows as for both."""
        rows = (z - mean[None, :]) / np.sqrt(z.shape[0])
        if x.shape[1] < size:
            rows = jnp.linalg.qr(rows, mode="r")
            return jnp.pad(rows, ((0, x.shape[1] - rows.shape[0]), (0, 0)))
        return jnp.pad(rows, ((0, size - rows.shape[0]), (0, 0)))

    a, b = factor(x, means[0]), factor(y, means[1])
    scale = jnp.maximum(jnp.abs(a).max(), jnp.abs(b).max())
    unit = jnp.where(scale > 0, scale, 1)
    left, _, right = jnp.linalg.svd((a / unit) @ (b / unit).T)
    apart = a - left @ (right @ b)
    squares = jnp.square(means[0] - means[1]).sum() + jnp.square(apart).sum()
    finite = jnp.isfinite(x).all() & jnp.isfinite(y).all()
    return jnp.where(finite, jnp.sqrt(squares), jnp.nan)


_w2 = compiled(_w2_of)
