"""Closed-form upper bounds on W1, U1-U3; see `bounds` for what they share."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from unitnorm_jax.ics.samples import as_matrices, centred, norms

Before = Num[Array | np.ndarray, "n ..."]
After = Num[Array | np.ndarray, "m ..."]
Scalar = Float[Array, ""]


@jax.jit
def moment_upper_bound(x: Before, y: After) -> Scalar:
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
    x, y = centred(x, y)
    return moments_upper_bound(jnp.mean(x, 0), jnp.var(x, 0), jnp.mean(y, 0), jnp.var(y, 0))


@jax.jit
def moments_upper_bound(
    x_mean: Num[Array | np.ndarray, "*d"],
    x_var: Num[Array | np.ndarray, "*d"],
    y_mean: Num[Array | np.ndarray, "*d"],
    y_var: Num[Array | np.ndarray, "*d"],
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


@jax.jit
def radius_upper_bound(
    x: Before, y: After, point: Num[Array | np.ndarray, "..."] | None = None
) -> Scalar:
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
    x, y = centred(x, y)
    if point is None:
        middle = (jnp.mean(x, axis=0) + jnp.mean(y, axis=0)) / 2
    else:
        middle = (jnp.asarray(point) - origin.reshape(shape)).reshape(-1)
    return jnp.mean(norms(x - middle[None, :])) + jnp.mean(norms(y - middle[None, :]))


@jax.jit
def pairing_upper_bound(x: Before, y: After) -> Scalar:
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
    x, y = as_matrices(x, y)
    return jnp.mean(norms(x - y))
