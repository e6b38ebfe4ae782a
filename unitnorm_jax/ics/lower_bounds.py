"""Closed-form lower bounds on W1, L1-L4; see `bounds` for what they share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from unitnorm_jax.ics.line import line_em_distance
from unitnorm_jax.ics.samples import as_matrices, centred, norms

Before = Num[Array | np.ndarray, "n ..."]
After = Num[Array | np.ndarray, "m ..."]
Scalar = Float[Array, ""]


@jax.jit
def mean_lower_bound(x: Before, y: After) -> Scalar:
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
    x, y = centred(x, y)
    return norms((jnp.mean(x, axis=0) - jnp.mean(y, axis=0))[None, :])[0]


@jax.jit
def norm_lower_bound(x: Before, y: After) -> Scalar:
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
    x, y = as_matrices(x, y)
    return jnp.abs(jnp.mean(norms(x)) - jnp.mean(norms(y)))


@functools.partial(jax.jit, static_argnames="order")
def moment_lower_bound(x: Before, y: After, order: int | float) -> Scalar:
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
    x, y = as_matrices(x, y)
    largest = jnp.maximum(jnp.max(jnp.abs(x), axis=0), jnp.max(jnp.abs(y), axis=0))  # (d,)
    unit = jnp.where(largest > 0, largest, 1)[None, :]
    moments = [jnp.mean((z / unit) ** int(order), axis=0) for z in (x, y)]
    return jnp.max(jnp.abs(moments[0] - moments[1]) * largest / order)


@jax.jit
def projection_lower_bound(
    x: Before, y: After, direction: Num[Array | np.ndarray, "..."] | None = None
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
      >>> d = projection_lower_bound(jnp.zeros((3, 2)), jnp.ones((3, 2)), theta)
      >>> round(float(d), 5)
      1.4

    References:
      Derived here.
    """
    if direction is not None and direction.shape != x.shape[1:]:
        raise ValueError(
            f"`direction` (=shape {direction.shape}) must have the trailing shape of the samples "
            f"(={x.shape[1:]}); give one number per coordinate."
        )
    x, y = centred(x, y)
    if direction is None:
        return jnp.max(line_em_distance(x, y))
    theta = jnp.asarray(direction).reshape(-1).astype(x.dtype)
    theta = theta / norms(theta[None, :])[0]
    x, y = (jnp.sum(z * theta[None, :], axis=1) for z in (x, y))
    return line_em_distance(x, y)
