"""Samples by channel, and one number for all channels of a layer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unitnorm_jax.ics.distances import _rounding
from unitnorm_jax.ics.distances._samples import check_samples


class Summary(NamedTuple):
    """A number per channel, as two for the layer."""

    median: Float[Array, ""]
    """Half of the channels have less."""
    ninety: Float[Array, ""]
    """90 % of the channels have less."""


def summary(values: Float[Array, "..."]) -> Summary:
    """Return median and 90 % quantile over channels, by linear interpolation.

    Args:
        values: One number per channel; any shape.

    Returns:
        Both, in the unit of the values; NaN if one of them is.

    Example:
        >>> import jax.numpy as jnp
        >>> summary(jnp.arange(11.0))
        Summary(median=Array(5., dtype=float32), ninety=Array(9., dtype=float32))
    """
    return Summary(*jnp.quantile(values, jnp.array([0.5, 0.9], values.dtype)))


def by_channel(x: Any, y: Any, axis: int) -> tuple[jax.Array, jax.Array]:
    """Return two samples as (samples times positions, channels), in the dtype to compute in.

    Raises:
        ValueError: If shapes do not fit, or the numbers are not real.
    """
    check_samples(x, y)
    if not -x.ndim <= axis < x.ndim or axis % x.ndim == 0:
        raise ValueError(
            f"`axis` (={axis}) must be the channels' of samples of shape {x.shape}, whose axis 0 "
            "is the samples'; give -1 for channels last, 1 for channels first."
        )
    dtype = _rounding.working_dtype(x, y)
    x, y = (jnp.moveaxis(jnp.asarray(z), axis, -1).astype(dtype) for z in (x, y))
    return x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and standard deviation of each column, in two passes about the first row."""
    moved = x - x[:1]
    mean = moved.mean(0)
    return x[0] + mean, jnp.sqrt(jnp.square(moved - mean[None, :]).mean(0))
