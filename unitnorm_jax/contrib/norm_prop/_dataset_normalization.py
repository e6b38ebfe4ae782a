"""Normalization of the inputs by the statistics of a whole data set."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.functional._numerics.arguments import as_array, check_epsilon
from unitnorm_jax.functional._numerics.scaling import centred, power_of_two

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
    x: Shaped[Array, "n ..."] | Shaped[np.ndarray, "n ..."],
    *,
    whitening: str | None = None,
    epsilon: float = 1e-5,
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
        x: the training inputs, (n, ...), of any real dtype; each position of (...) is a feature.
        whitening: None, "pca" or "zca".
        epsilon: added to the eigenvalues; without whitening it has no use.

    Returns:
        Mean and transform, for ``normalize_dataset``, in at least float32. (So a mean of 10,000
        standard deviations is rounded by 5e-4 of one, which normalized inputs then are off by.)

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
    x = _real(x)
    if x.ndim < 2 or not _several(x.shape[0]):
        raise ValueError(
            f"`x` has shape {x.shape}, but must hold two or more samples of at least one feature, "
            "(n, ...): it is the whole training set."
        )
    return _dataset_stats(x, whitening, epsilon)


def _several(samples: Any) -> bool:
    """Return whether there are two or more; a symbolic number of samples may be."""
    return not isinstance(samples, int) or samples > 1


def _real(x: Any) -> jax.Array:
    """``x`` as an array of real numbers; integers are converted later, sample by sample."""
    x = as_array(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ValueError(f"`x` must be real, not {x.dtype}: give x.real and x.imag as features.")
    return x


@functools.partial(jax.jit, static_argnums=(1, 2))
def _dataset_stats(x: jax.Array, whitening: str | None, epsilon: float) -> DatasetStats:
    """Return one program, so that of a large data set no converted or centred copy is made."""
    z, mean, size = centred(x.astype(jnp.promote_types(x.dtype, jnp.float32)), (0,))
    mean = mean[0]
    if whitening is None:
        # In units of the largest deviation squares neither overflow nor underflow.
        factor = power_of_two(size)
        std = jnp.sqrt(jnp.square(z * factor).mean(0))
        constant = std == 0  # not `> 0`: NaN stays
        slope = jnp.where(constant, 0, factor[0] / jnp.where(constant, 1, std))
        return DatasetStats(mean, slope)
    flat = z.reshape(z.shape[0], -1)
    covariance = jnp.dot(flat.T, flat, precision=lax.Precision.HIGHEST) / z.shape[0]
    values, vectors = jnp.linalg.eigh(covariance)
    values = jnp.maximum(values, 0) + epsilon
    none = values == 0
    inverse = jnp.where(none, 0, lax.rsqrt(jnp.where(none, 1, values)))
    rotated = inverse[:, None] * vectors.T
    if whitening == "pca":
        return DatasetStats(mean, rotated)
    return DatasetStats(mean, jnp.dot(vectors, rotated, precision=lax.Precision.HIGHEST))


def normalize_dataset(
    x: Shaped[Array, "n ..."] | Shaped[np.ndarray, "n ..."], stats: DatasetStats
) -> Float[Array, "n ..."]:
    """Normalize inputs by the statistics of the training set.

    Args:
        x: inputs, (n, ...); of the test set too.
        stats: from ``dataset_stats`` of the training inputs.

    Returns:
        An array of the same shape; of the same dtype if that is floating, else of that of
        ``stats``.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (1000, 3)) @ jax.numpy.ones((3, 3))
        >>> normalize_dataset(x[:2], dataset_stats(x, whitening="zca")).shape
        (2, 3)
    """
    x = _real(x)
    if x.shape[1:] != stats.mean.shape:
        raise ValueError(
            f"`x` has features of shape {x.shape[1:]}, but the statistics are of features of "
            f"shape {stats.mean.shape}: they must be equal."
        )
    dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else stats.mean.dtype
    z = x.astype(jnp.promote_types(x.dtype, jnp.float32)) - stats.mean[None]
    if stats.transform.shape == stats.mean.shape:
        return (z * stats.transform[None]).astype(dtype)
    flat = z.reshape(z.shape[0], -1)
    white = jnp.dot(flat, stats.transform.T, precision=lax.Precision.HIGHEST)
    return white.reshape(x.shape).astype(dtype)
