"""Normalization of the inputs by the statistics of a whole data set."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from unitnorm_jax.functional._arguments import check_epsilon

WHITENINGS = (None, "pca", "zca")


class DatasetStats(NamedTuple):
    """What ``normalize_dataset`` subtracts and multiplies by.

    Attributes:
      mean: mean of every feature, (...).
      transform: 1 / standard deviation of every feature, (...), or with whitening the matrix
        (features, features) from centred features to white ones.
    """

    mean: Float[Array, "..."]
    transform: Float[Array, "..."]


def dataset_stats(
    x: Float[Array, "n ..."], *, whitening: str | None = None, epsilon: float = 1e-5
) -> DatasetStats:
    r"""Statistics that give every feature of a data set zero mean and unit variance.

    Normalization propagation assumes it of its input, of the data set as a whole rather than of a
    batch (the paper's abstract). Which of the three forms the paper's experiments used is not
    known; unit variance with little correlation is assumed by "None", no correlation is made by the
    other two::

        None    (x - mean) / std
        "pca"   diag(1 / sqrt(l + epsilon)) U' (x - mean),     U l U' = covariance of the features
        "zca"   U diag(1 / sqrt(l + epsilon)) U' (x - mean)

    A feature that never changes becomes 0 (derived here: it has no variance to make 1).

    Args:
      x: the training inputs, (n, ...); each position of (...) is a feature.
      whitening: None, "pca" or "zca".
      epsilon: added to the eigenvalues; without whitening it has no use.

    Returns:
      Mean and transform, for ``normalize_dataset``.

    Raises:
      ValueError: an argument is out of its range, or there are fewer than two samples.

    Example:
      >>> import jax
      >>> x = 3 + 2 * jax.random.normal(jax.random.key(0), (1000, 8, 8, 1))
      >>> z = normalize_dataset(x, dataset_stats(x))
      >>> bool(abs(z.mean(0)).max() < 1e-5), bool(abs(z.std(0) - 1).max() < 1e-5)
      (True, True)
    """
    if whitening not in WHITENINGS:
        raise ValueError(
            f"`whitening` (={whitening!r}) must be one of {', '.join(map(repr, WHITENINGS))}."
        )
    check_epsilon(epsilon)
    if x.ndim < 2 or x.shape[0] < 2:
        raise ValueError(
            f"`x` has shape {x.shape}, but must hold two or more samples of at least one feature, "
            "(n, ...): it is the whole training set."
        )
    mean = x.mean(0)
    z = x - mean[None]
    if whitening is None:
        std = jnp.sqrt(jnp.square(z).mean(0))
        # What rounding makes of a constant is no variance.
        some = std > 8 * jnp.finfo(x.dtype).eps * jnp.abs(mean)
        return DatasetStats(mean, jnp.where(some, 1 / jnp.where(some, std, 1), 0))
    flat = z.reshape(len(z), -1)
    covariance = jnp.dot(flat.T, flat, precision=lax.Precision.HIGHEST) / len(z)
    values, vectors = jnp.linalg.eigh(covariance)
    values = jnp.maximum(values, 0) + epsilon
    inverse = jnp.where(values > 0, lax.rsqrt(jnp.where(values > 0, values, 1)), 0)
    rotated = inverse[:, None] * vectors.T
    if whitening == "pca":
        return DatasetStats(mean, rotated)
    return DatasetStats(mean, jnp.dot(vectors, rotated, precision=lax.Precision.HIGHEST))


def normalize_dataset(x: Float[Array, "n ..."], stats: DatasetStats) -> Float[Array, "n ..."]:
    """Normalize inputs by the statistics of the training set.

    Args:
      x: inputs, (n, ...); of the test set too.
      stats: from ``dataset_stats`` of the training inputs.

    Returns:
      An array of the same shape and dtype.

    Raises:
      ValueError: the shapes do not fit.

    Example:
      >>> import jax
      >>> x = jax.random.normal(jax.random.key(0), (1000, 3)) @ jax.numpy.ones((3, 3))
      >>> normalize_dataset(x[:2], dataset_stats(x, whitening="zca")).shape
      (2, 3)
    """
    if x.shape[1:] != stats.mean.shape:
        raise ValueError(
            f"`x` has features of shape {x.shape[1:]}, but the statistics are of features of "
            f"shape {stats.mean.shape}: they must be equal."
        )
    z = x - stats.mean[None]
    if stats.transform.shape == stats.mean.shape:
        return (z * stats.transform[None]).astype(x.dtype)
    flat = z.reshape(len(z), -1)
    white = jnp.dot(flat, stats.transform.T, precision=lax.Precision.HIGHEST)
    return white.reshape(x.shape).astype(x.dtype)
