"""Statistics for noise-aware batch normalization: of a batch, pooled, and tracked."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.contrib.estimated_batch_norm._functional import check_rate
from unitnorm_jax.functional._numerics import arguments, devices
from unitnorm_jax.functional._numerics.axes import check_axes
from unitnorm_jax.functional._numerics.batch_statistics import BatchStats, hashable_groups
from unitnorm_jax.functional._numerics.scaling import one_number


def batch_statistics(
    x: Shaped[Array, "..."],
    *,
    axis: int | Sequence[int] = -1,
    mask: Shaped[Array, "..."] | None = None,
    axis_name: str | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
) -> tuple[BatchStats, Float[Array, "..."]]:
    """Mean and biased variance of a batch, per feature, and how many values they are of.

    In two passes and at least float32: exact whatever the mean. A feature without a valid value
    has count, mean and variance 0.

    Args:
        x: input, of a floating dtype.
        axis: the feature axis or axes.
        mask: True where a value takes part; broadcastable to x. Other values do not matter.
        axis_name: mapped axis over whose devices sums and counts are added.
        axis_index_groups: groups of indices within that axis.

    Returns:
        The statistics and the counts, all of the shape of the feature axes (ascending).

    Raises:
        ValueError: shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import batch_statistics
        >>> stats, count = batch_statistics(jnp.array([[1.0, 5.0], [3.0, 5.0]]))
        >>> stats.mean.tolist(), stats.var.tolist(), count.tolist()
        ([2.0, 5.0], [1.0, 0.0], [2.0, 2.0])
    """
    x = arguments.as_floating(x)
    features = check_axes(x.shape, axis)
    over = tuple(i for i in range(x.ndim) if i not in features)
    z = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    valid = jnp.ones(x.shape, bool) if mask is None else arguments.check_mask(mask, x.shape)

    def totals(*values: jax.Array) -> jax.Array:
        stacked = jnp.stack([value.sum(over, keepdims=True) for value in values])
        return devices.total(stacked, axis_name, hashable_groups(axis_index_groups))

    count, first = totals(valid.astype(z.dtype), jnp.where(valid, z, 0))
    some = jnp.maximum(count, 1)
    mean = one_number(first / some)
    # What the first mean is off by, rounding, is seen in the second pass.
    z = jnp.where(valid, z - mean, 0)
    rest, square = totals(z, jnp.square(z)) / some[None]
    var = jnp.maximum(square - jnp.square(rest), 0)
    mean, var, count = (a.squeeze(over) for a in (mean + rest, var, count))
    return BatchStats(mean, var), count


def pool_statistics(
    stats: Sequence[BatchStats], counts: Sequence[Shaped[Array, "..."]]
) -> BatchStats:
    r"""Statistics of several batches together, from those of each and their counts n.

        mean = sum n mean_b / sum n
        var  = sum n (var_b + (mean_b - mean)^2) / sum n

    These are the statistics of all values at once, whatever the sizes of the batches.

    Args:
        stats: of each batch.
        counts: of each batch, of the shape of the statistics. Where all are 0 the result is 0.

    Returns:
        The pooled statistics.

    Raises:
        ValueError: there is no batch, or numbers of statistics and counts differ.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.functional import BatchStats
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import pool_statistics
        >>> one = BatchStats(mean=jnp.array([1.0]), var=jnp.array([0.0]))
        >>> two = BatchStats(mean=jnp.array([4.0]), var=jnp.array([0.0]))
        >>> pooled = pool_statistics([one, two], [jnp.array([2.0]), jnp.array([1.0])])
        >>> pooled.mean.tolist(), pooled.var.tolist()
        ([2.0], [2.0])
    """
    if not stats or len(stats) != len(counts):
        raise ValueError(
            f"`stats` (of {len(stats)} batches) and `counts` (of {len(counts)}) must be of the "
            "same batches, and of one at least."
        )
    means, variances = (jnp.stack(values) for values in zip(*stats, strict=True))
    # Converted: sums of integers wrap.
    count = jnp.stack(counts).astype(jnp.promote_types(means.dtype, jnp.float32))  # (batches, ...)
    total = count.sum(0)
    weights = count / jnp.maximum(total, 1)[None]
    # About the first: its rounding is then that of the differences, not of a large mean.
    mean = jnp.where(total > 0, means[0] + (weights * (means - means[:1])).sum(0), 0)
    var = (weights * (variances + jnp.square(means - mean[None]))).sum(0)
    return BatchStats(mean, var)


def track_statistics(
    stats: BatchStats, batch: BatchStats, rate: jax.Array | float | int
) -> BatchStats:
    """Statistics that follow the batches: ``(1 - rate) * stats + rate * batch``.

    Args:
        stats: statistics before; their dtype is kept.
        batch: those of the batch.
        rate: weight of the batch, in [0, 1]; may be traced. 1: those of the batch alone.

    Returns:
        The new statistics.

    Raises:
        ValueError: ``rate`` is not in [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.functional import BatchStats
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import track_statistics
        >>> old = BatchStats(mean=jnp.array([0.0]), var=jnp.array([1.0]))
        >>> new = BatchStats(mean=jnp.array([1.0]), var=jnp.array([3.0]))
        >>> track_statistics(old, new, 0.5).var.tolist()
        [2.0]

    References:
        Noise-aware Batch Normalization, Li-Huang Tsai, Shih-Chieh Chang, Yu-Ting Chen, Jia-Yu Pan,
        Wei Wei and Da-Cheng Juan, https://arxiv.org/abs/2007.03230, which tracks such shifts; this
        form and its rate are derived here.
    """
    check_rate(rate)
    return BatchStats(
        *(
            ((1 - rate) * old + rate * new).astype(old.dtype)
            for old, new in zip(stats, batch, strict=True)
        )
    )
