"""Closed-form bounds on W1 between two samples: U1-U3 from above, L1-L4 from below.

All hold for the samples themselves (as empirical distributions) in exact arithmetic; they are
evaluated in the working dtype and, unlike the certificate of `em_distance`, not widened: each is
right to a few roundoffs of the size of the data. Samples are (n, ...) and (m, ...), with the
same trailing shape, taken as vectors of d numbers; n and m may differ except in U3. The bounds
are those of the project's specification, with proofs derived here.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from unitnorm_jax.ics import rounding
from unitnorm_jax.ics.line import line_em_distance
from unitnorm_jax.ics.samples import check_samples

Samples = Num[Array | np.ndarray, "n ..."]
Scalar = Float[Array, ""]


def moment_upper_bound(x: Samples, y: Samples) -> Scalar:
    """U1: ``W1 <= sqrt( sum_i var x_i + var y_i + (E x_i - E y_i)^2 )``.

    Proof: the independent coupling has E |X - Y|^2 = the sum; Jensen. Between two exactly
    batch-normalized outputs it is sqrt(2 d): bounded, but growing with the dimension, and with
    every error of the statistics. Attained: see `experiments.bounds`.

    Args:
      x: Before, (n, ...).
      y: After, (m, ...).

    Returns:
      The bound, in the unit of x.

    Raises:
      ValueError: If shapes do not match or samples are empty or complex.

    Example:
      >>> import jax.numpy as jnp
      >>> moment_upper_bound(jnp.array([[-1.0], [1.0]]), jnp.array([[-1.0], [1.0]]))
      Array(1.4142135, dtype=float32)

    References:
      Derived here.
    """
    x, y = _centred(x, y)
    return moments_upper_bound(jnp.mean(x, 0), jnp.var(x, 0), jnp.mean(y, 0), jnp.var(y, 0))


def moments_upper_bound(
    x_mean: Float[Array, "*d"],
    x_var: Float[Array, "*d"],
    y_mean: Float[Array, "*d"],
    y_var: Float[Array, "*d"],
) -> Scalar:
    """U1 from the moments alone: ``sqrt( sum_i var x_i + var y_i + (E x_i - E y_i)^2 )``.

    For outputs normalized by noisy statistics: means off by delta_i, variances by a factor.

    Args:
      x_mean: Mean of each coordinate before.
      x_var: Variance of each coordinate before.
      y_mean: Mean after.
      y_var: Variance after.

    Returns:
      The bound.

    Example:
      >>> import jax.numpy as jnp
      >>> zero, one = jnp.zeros(8), jnp.ones(8)
      >>> moments_upper_bound(zero, one, zero, one)
      Array(4., dtype=float32)

    References:
      Derived here.
    """
    return jnp.sqrt(jnp.sum(x_var + y_var + jnp.square(x_mean - y_mean)))


def radius_upper_bound(x: Samples, y: Samples, point: Float[Array, " ..."] | None = None) -> Scalar:
    """U2: ``W1 <= E |X - m| + E |Y - m|`` for any point m.

    Proof: the triangle inequality through a point mass at m, from which W1 is E |X - m|.
    Attained when m lies between all of X and all of Y, on a line.

    Args:
      x: Before, (n, ...).
      y: After, (m, ...).
      point: m, of the trailing shape; default the mean of both sample means.

    Returns:
      The bound.

    Raises:
      ValueError: If shapes do not match or samples are empty or complex.

    Example:
      >>> import jax.numpy as jnp
      >>> radius_upper_bound(jnp.full((2, 1), -1.0), jnp.full((3, 1), 1.0))
      Array(2., dtype=float32)

    References:
      Derived here.
    """
    if point is not None and point.shape != x.shape[1:]:
        raise ValueError(
            f"`point` (=shape {point.shape}) must have the trailing shape of the samples "
            f"(={x.shape[1:]}); give one number per coordinate."
        )
    shape = x.shape[1:]
    origin = x[:1]
    x, y = _centred(x, y)
    if point is None:
        middle = (jnp.mean(x, axis=0) + jnp.mean(y, axis=0)) / 2
    else:
        middle = (point - origin.reshape(shape)).reshape(-1)
    return jnp.mean(_norm(x - middle[None, :])) + jnp.mean(_norm(y - middle[None, :]))


def pairing_upper_bound(x: Samples, y: Samples) -> Scalar:
    """U3: ``W1 <= mean_i |x_i - y_i|``.

    Proof: the identity coupling is one. Attained when the pairing is optimal, as it is for
    every translation; `em_distance` finds out and proves it.

    Args:
      x: Before, (n, ...).
      y: After, (n, ...), in the same order.

    Returns:
      The bound.

    Raises:
      ValueError: If shapes do not match, or the samples are not paired.

    Example:
      >>> import jax.numpy as jnp
      >>> pairing_upper_bound(jnp.zeros((3, 4)), jnp.ones((3, 4)))
      Array(2., dtype=float32)

    References:
      Derived here.
    """
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            f"The pairing bound needs as many samples in x (={x.shape[0]}) as in y "
            f"(={y.shape[0]}); use `moment_upper_bound` or `radius_upper_bound`."
        )
    x, y = _matrices(x, y)
    return jnp.mean(_norm(x - y))


def mean_lower_bound(x: Samples, y: Samples) -> Scalar:
    """L1: ``W1 >= |E X - E Y|``.

    Proof: |E (X - Y)| <= E |X - Y| under every coupling. Attained by translations; 0 between
    exactly batch-normalized outputs: what batch normalization leaves, the mean cannot see.

    Args:
      x: Before, (n, ...).
      y: After, (m, ...).

    Returns:
      The bound.

    Raises:
      ValueError: If shapes do not match or samples are empty or complex.

    Example:
      >>> import jax.numpy as jnp
      >>> mean_lower_bound(jnp.zeros((3, 4)), jnp.ones((3, 4)))
      Array(2., dtype=float32)

    References:
      Derived here.
    """
    x, y = _centred(x, y)
    return _norm((jnp.mean(x, axis=0) - jnp.mean(y, axis=0))[None, :])[0]


def norm_lower_bound(x: Samples, y: Samples) -> Scalar:
    """L2: ``W1 >= | E |X| - E |Y| |``.

    Proof: the norm is 1-Lipschitz, so ||X| - |Y|| <= |X - Y| under every coupling. The mean
    norm depends on moments of every order. Attained by scalings.

    Args:
      x: Before, (n, ...).
      y: After, (m, ...).

    Returns:
      The bound.

    Raises:
      ValueError: If shapes do not match or samples are empty or complex.

    Example:
      >>> import jax.numpy as jnp
      >>> norm_lower_bound(jnp.full((3, 4), 1.0), jnp.full((3, 4), -2.0))
      Array(2., dtype=float32)

    References:
      Derived here.
    """
    x, y = _matrices(x, y)
    return jnp.abs(jnp.mean(_norm(x)) - jnp.mean(_norm(y)))


def moment_lower_bound(x: Samples, y: Samples, order: int) -> Scalar:
    """L3: ``W1 >= max_i | E X_i^p - E Y_i^p | / (p M_i^(p-1))``, |values of coordinate i| <= M_i.

    Proof: x^p / (p M^(p-1)) has slope at most 1 on [-M, M]. These are the high-order moments
    which batch normalization does not control. M_i is the largest magnitude met in coordinate i
    (sharper than one M for all). Attained at p = 1 by a translation along one axis.

    Args:
      x: Before, (n, ...).
      y: After, (m, ...).
      order: p, an integer >= 1.

    Returns:
      The bound.

    Raises:
      ValueError: If shapes do not match or samples are empty or complex, or p < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> moment_lower_bound(jnp.zeros((2, 1)), jnp.full((2, 1), 3.0), order=2)
      Array(1.5, dtype=float32)

    References:
      Derived here.
    """
    if order < 1 or order != int(order):
        raise ValueError(f"`order` (={order}) must be an integer >= 1; 1 compares the means.")
    x, y = _matrices(x, y)
    largest = jnp.maximum(jnp.max(jnp.abs(x), axis=0), jnp.max(jnp.abs(y), axis=0))  # (d,)
    unit = jnp.where(largest > 0, largest, 1)[None, :]
    moments = [jnp.mean((z / unit) ** int(order), axis=0) for z in (x, y)]
    return jnp.max(jnp.abs(moments[0] - moments[1]) * largest / order)


def projection_lower_bound(
    x: Samples, y: Samples, direction: Float[Array, " ..."] | None = None
) -> Scalar:
    """L4: ``W1 >= W1(theta . X, theta . Y)``, |theta| = 1.

    Proof: |theta . (X - Y)| <= |X - Y| under every coupling. On the line W1 is exact by sorting.
    Attained by translations along theta.

    Args:
      x: Before, (n, ...).
      y: After, (m, ...).
      direction: theta, of the trailing shape, normalised here, not 0; default the best
        coordinate axis.

    Returns:
      The bound.

    Raises:
      ValueError: If shapes do not match or samples are empty or complex.

    Example:
      >>> import jax.numpy as jnp
      >>> theta = jnp.array([3.0, 4.0])
      >>> projection_lower_bound(jnp.zeros((3, 2)), jnp.ones((3, 2)), theta)
      Array(1.4, dtype=float32)

    References:
      Derived here.
    """
    if direction is not None and direction.shape != x.shape[1:]:
        raise ValueError(
            f"`direction` (=shape {direction.shape}) must have the trailing shape of the samples "
            f"(={x.shape[1:]}); give one number per coordinate."
        )
    x, y = _centred(x, y)
    if direction is None:
        return jnp.max(line_em_distance(x, y))
    theta = direction.reshape(-1).astype(x.dtype)
    theta = theta / _norm(theta[None, :])[0]
    x, y = (jnp.sum(z * theta[None, :], axis=1) for z in (x, y))
    return line_em_distance(x, y)


def _matrices(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    check_samples(x, y)
    dtype = rounding.working_dtype(x, y)
    return tuple(jnp.asarray(z).reshape(z.shape[0], -1).astype(dtype) for z in (x, y))


def _centred(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both minus the first sample of x, so that a large common offset does no harm."""
    x, y = _matrices(x, y)
    return x - x[:1], y - x[:1]


def _norm(x: jax.Array) -> jax.Array:  # (n, d) -> (n,)
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=1))
