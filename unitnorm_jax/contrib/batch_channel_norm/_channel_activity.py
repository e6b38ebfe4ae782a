"""Elimination singularities: channels that never pass a ReLU, and how near to it they are."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.contrib.noise_aware_batch_norm._functional import (
    batch_statistics,
    pool_statistics,
)
from unitnorm_jax.functional._numerics import arguments
from unitnorm_jax.functional._numerics.axes import check_axis
from unitnorm_jax.functional._numerics.batch_statistics import BatchStats


class ChannelActivity(NamedTuple):
    """What is known of the pre-activations of every channel, over the batches seen so far.

    Attributes:
        size: number of values, (channels,).
        mean: their mean, (channels,).
        var: their biased variance, (channels,).
        max: the largest, (channels,); minus infinity where there is none.
    """

    size: Shaped[Array, " c"]
    mean: Float[Array, " c"]
    var: Float[Array, " c"]
    max: Float[Array, " c"]


def channel_activity(
    x: Float[Array, "..."],
    before: ChannelActivity | None = None,
    *,
    axis: int = -1,
    mask: Shaped[Array, "..."] | None = None,
    axis_name: str | None = None,
) -> ChannelActivity:
    r"""Moments and maximum of every channel over a data set, one batch after the other.

    A channel whose ReLU is off for all inputs has no gradient and stays so: an elimination
    singularity. Batch normalization keeps channels away from it, as their pre-activations have zero
    mean and unit variance over the data set; normalizations within a sample do not. ``max`` says
    which channels are there (``dead_channels``), mean and var how near the others are
    (``mean_to_std``).

    The diagnosis is the paper's, the merging of batches (by counts, so that it is exact for unequal
    ones) is derived here.

    Args:
        x: pre-activations, what goes into a ReLU; of any rank >= 2.
        before: what former batches gave.
        axis: the feature axis.
        mask: True where a value counts; broadcastable to x.
        axis_name: mapped axis over whose devices the batch is split.

    Returns:
        The activity over all batches so far.

    Raises:
        ValueError: the input is of another number of channels than before, or an argument does not
            fit.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (2, 100, 3))
        >>> x = x + jax.numpy.array([[[0.0, -9.0, 5.0]]])
        >>> activity = channel_activity(x[1], channel_activity(x[0]))
        >>> dead_channels(activity)
        Array([False,  True, False], dtype=bool)
        >>> print([f"{ratio:.0f}" for ratio in mean_to_std(activity)])
        ['0', '9', '5']

    References:
        Siyuan Qiao, Huiyu Wang, Chenxi Liu, Wei Shen and Alan Yuille, `Rethinking Normalization and
        Elimination Singularity in Neural Networks <https://arxiv.org/abs/1911.09738>`_, 2019.
    """
    feature = check_axis(x.shape, axis)
    stats, size = batch_statistics(x, axis=feature, mask=mask, axis_name=axis_name)
    reduced = tuple(i for i in range(x.ndim) if i != feature)
    where = None if mask is None else arguments.check_mask(mask, x.shape)
    highest = jnp.max(x.astype(stats.mean.dtype), reduced, where=where, initial=-jnp.inf)
    if axis_name is not None:
        highest = lax.pmax(highest, axis_name)
    now = ChannelActivity(size, stats.mean, stats.var, highest)
    if before is None:
        return now
    if before.mean.shape != now.mean.shape:
        raise ValueError(
            f"The input has {x.shape[feature]} channels, but those before had "
            f"{before.mean.shape[0]}: keep one activity for each layer."
        )
    pooled = pool_statistics(
        [BatchStats(a.mean, a.var) for a in (before, now)], [before.size, now.size]
    )
    return ChannelActivity(
        size=before.size + now.size,
        mean=pooled.mean,
        var=pooled.var,
        max=jnp.maximum(before.max, now.max),
    )


def dead_channels(activity: ChannelActivity) -> Shaped[Array, " c"]:
    """Return whether each channel's ReLU was off for every value: its maximum is not positive.

    Args:
        activity: from ``channel_activity``.

    Returns:
        Booleans, (channels,).

    Example:
        >>> import jax.numpy as jnp
        >>> dead_channels(channel_activity(jnp.array([[-1.0, 2.0], [-3.0, -1.0]])))
        Array([ True, False], dtype=bool)
    """
    return activity.max <= 0


def mean_to_std(activity: ChannelActivity) -> Float[Array, " c"]:
    """|mean| / standard deviation of each channel's pre-activations over the data set.

    About 0 after batch normalization (with bias 0); a channel far below 0 by this measure is about
    to die, one far above is about to be linear.

    Args:
        activity: from ``channel_activity``.

    Returns:
        (channels,): infinite for a constant other than 0, and 0 for a constant 0; NaN where a value
        was not finite, or their squares overflow.

    Example:
        >>> import jax.numpy as jnp
        >>> mean_to_std(channel_activity(jnp.array([[1.0, 4.0], [3.0, 4.0]])))
        Array([ 2., inf], dtype=float32)
    """
    size, varies = jnp.abs(activity.mean), activity.var > 0
    ratio = size / jnp.sqrt(jnp.where(varies, activity.var, 1))
    ratio = jnp.where(varies, ratio, jnp.where(size > 0, jnp.inf, 0))
    # Neither NaN nor an overflow is a healthy channel.
    return jnp.where(jnp.isfinite(activity.mean) & jnp.isfinite(activity.var), ratio, jnp.nan)
