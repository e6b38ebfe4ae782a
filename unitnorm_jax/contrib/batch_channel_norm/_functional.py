"""Batch-channel normalization as a pure function."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.contrib.estimated_batch_norm._functional import estimated_batch_norm
from unitnorm_jax.functional._numerics import arguments
from unitnorm_jax.functional._numerics.batch_norm import (
    channel_arguments,
    normalize_by_batch,
    normalize_by_statistics,
    spread,
)
from unitnorm_jax.functional._numerics.batch_statistics import (
    BatchStats,
    Reduction,
    hashable_groups,
    update_stats,
)


def batch_channel_norm(
    x: Shaped[Array, "..."],
    stats: BatchStats,
    scale: Shaped[Array, "..."] | None = None,
    bias: Shaped[Array, "..."] | None = None,
    group_scale: Shaped[Array, "..."] | None = None,
    group_bias: Shaped[Array, "..."] | None = None,
    *,
    use_running_average: bool,
    num_groups: int = 32,
    rate: Shaped[Array, ""] | float | int | None = None,
    axis: int = -1,
    sample_axis: int = 0,
    momentum: Any = 0.99,
    epsilon: Any = 1e-5,
    dtype: Any = None,
    bessel_correction: bool = False,
    axis_name: str | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    mask: Shaped[Array, "..."] | None = None,
    use_fast_variance: bool = True,
) -> tuple[Float[Array, "..."], BatchStats]:
    r"""Batch normalization, then group normalization with one scale and bias per GROUP.

    With n a sample, p a position, c a channel and g its group (of C / num_groups consecutive
    channels)::

        b = scale_c * (x - mean_c) / sqrt(var_c + epsilon) + bias_c
        y = group_scale_g * (b - m_ng) / sqrt(v_ng + epsilon) + group_bias_g

    mean and var are those of the batch over samples and positions in training, the running ones
    at inference; m and v those of b over the positions and channels of one sample's group, always.
    Variances are biased. The first half keeps every channel's distribution near zero mean and unit
    variance, which group normalization alone does not: there a channel may die (elimination
    singularity, see ``ChannelActivity``).

    With a ``rate`` the first half is ``estimated_batch_norm``: the form for micro-batches, down to
    one sample.

    The method and the group-wise affine are the paper's and its code's, which has 32 groups
    everywhere. ``bessel_correction`` is PyTorch's, below that code. Masks and statistics across
    devices are derived here; the default is Flax's running average of biased variances.

    Args:
        x: input, of rank >= 2 and a floating dtype.
        stats: running statistics; ``mean`` and ``var`` have the shape (channels,). Their dtype is
            kept.
        scale: scales, (channels,) (default: 1).
        bias: biases, (channels,) (default: 0).
        group_scale: scales of the groups, (num_groups,) (default: 1).
        group_bias: biases of the groups, (num_groups,) (default: 0).
        use_running_average: normalize the first half with ``stats`` (inference).
        num_groups: number of groups; the channels must be divisible by it.
        rate: None, or the weight of the batch in the estimates of ``estimated_batch_norm``, in [0,
            1]; may be traced. ``momentum`` and ``bessel_correction`` then have no use.
        axis: the feature axis.
        sample_axis: the sample axis.
        momentum: decay rate of the running statistics: new = momentum * old + (1 - momentum) *
            batch; may be traced.
        epsilon: added to both variances.
        dtype: dtype of the result (default: that of x and the parameters together).
        bessel_correction: feed the running variance with the batch's times M / (M - 1), for M
            values per channel, as ``torch.nn.BatchNorm2d``; what normalizes is the biased one all
            the same.
        axis_name: mapped axis (``pmap``, ``shard_map``, ``vmap``) over whose devices the batch's
            statistics are taken: sums and counts are added, in one collective. Those of the groups
            need none.
        axis_index_groups: groups of indices within that axis, to share statistics in groups.
        mask: True where a value takes part in the statistics of both halves; broadcastable to x.
            Other places are normalized too.
        use_fast_variance: one pass over x for the batch's statistics, and a second only where it
            would lose digits. False: always two.

    Returns:
        The normalized input, and the updated running statistics (``stats`` itself at inference).

    Raises:
        ValueError: an argument is out of its range, shapes do not fit, or statistics would be those
            of single values: a batch of one value per channel in training without ``rate``, or
            groups of one channel at one position.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.functional import BatchStats
        >>> from unitnorm_jax.contrib.batch_channel_norm import batch_channel_norm
        >>> x = 3 + jax.random.normal(jax.random.key(0), (8, 4, 4, 6))
        >>> stats = BatchStats(mean=jnp.zeros(6), var=jnp.ones(6))
        >>> y, stats = batch_channel_norm(x, stats, use_running_average=False, num_groups=2)
        >>> groups = y.reshape(8, 16, 2, 3)
        >>> bool(jnp.allclose(groups.mean((1, 3)), 0, atol=1e-5))
        True

    References:
        Siyuan Qiao, Huiyu Wang, Chenxi Liu, Wei Shen and Alan Yuille, `Rethinking Normalization and
        Elimination Singularity in Neural Networks <https://arxiv.org/abs/1911.09738>`_, 2019, and
        `Micro-Batch Training with Batch-Channel Normalization and Weight Standardization
        <https://arxiv.org/abs/1903.10520>`_, 2019. Code:
        joe-siyuan-qiao/Batch-Channel-Normalization.
    """
    arguments.check_hyperparameters(momentum, epsilon)
    args = channel_arguments(
        x, stats, scale, bias, axis, mask, dtype, sample_axis, empty=use_running_average
    )
    group_shape = (check_groups(x.shape, args.axis, sample_axis, num_groups),)
    for name, value in (("group_scale", group_scale), ("group_bias", group_bias)):
        if value is not None and value.shape != group_shape:
            raise ValueError(
                f"`{name}` has shape {value.shape}, but must have one entry per group: "
                f"{group_shape} for `num_groups` (={num_groups})."
            )
    extra = [value for value in (group_scale, group_bias) if value is not None]
    result_dtype = jnp.result_type(args.result_dtype, *extra) if dtype is None else dtype
    reduction = Reduction(
        axis_name=axis_name,
        axis_index_groups=hashable_groups(axis_index_groups),
        guarded=x.dtype != jnp.bfloat16,
        two_pass=not use_fast_variance,
    )
    if rate is not None:
        y, stats = estimated_batch_norm(
            args.x,
            stats,
            *args.affine,
            use_running_average=use_running_average,
            rate=rate,
            axis=args.axis,
            epsilon=epsilon,
            dtype=args.compute_dtype,
            axis_name=axis_name,
            axis_index_groups=axis_index_groups,
            mask=args.mask,
        )
    elif use_running_average:
        mean, var = (value.astype(args.compute_dtype) for value in stats)
        y = normalize_by_statistics(
            args.x,
            *args.affine,
            mean,
            var,
            axis=args.axis,
            epsilon=epsilon,
            mask=args.mask,
            dtype=result_dtype,
        )
    else:
        values = reduction.values([x.size // x.shape[args.axis]], args.compute_dtype)
        # An array where the number of values is known at run time only.
        if args.mask is None and isinstance(values, float) and values == 1:
            raise ValueError(
                f"An input of shape {x.shape} has one value per channel, so that batch statistics "
                "normalize it to 0: give more samples, or a `rate` for running estimates instead."
            )
        y, mean, var, count = normalize_by_batch(
            args.x,
            args.mask,
            *args.affine,
            axis=args.axis,
            epsilon=epsilon,
            reduction=reduction,
            dtype=result_dtype,
        )
        decay = arguments.weak(momentum), arguments.weak(1 - momentum)
        if bessel_correction:
            var = var * count / jnp.maximum(count - 1, 1)
        stats = update_stats(stats, mean, var, count, decay)
    y = _normalize_by_group(
        y, args.mask, group_scale, group_bias, num_groups, args.axis, sample_axis % x.ndim, epsilon
    )
    return y.astype(result_dtype), stats


def check_groups(shape: Sequence[Any], axis: int, sample_axis: int, num_groups: int) -> int:
    """Return ``num_groups`` if it divides the channels, and leaves groups of several values."""
    channels = shape[axis]
    whole = isinstance(num_groups, numbers.Integral) and not isinstance(num_groups, bool)
    if not whole or num_groups < 1 or channels % num_groups:
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]
        raise ValueError(
            f"`num_groups` (={num_groups!r}) must divide the number of channels (={channels}): "
            f"choose among {', '.join(map(str, divisors))}."
        )
    rest = (size for i, size in enumerate(shape) if i != sample_axis % len(shape))
    if math.prod(rest) == num_groups:
        raise ValueError(
            f"`num_groups` (={num_groups}) leaves one value per sample and group of an input of "
            f"shape {tuple(shape)}, which normalization makes 0: choose fewer groups."
        )
    return num_groups


def _normalize_by_group(
    y: jax.Array,
    mask: jax.Array | None,
    scale: jax.Array | None,
    bias: jax.Array | None,
    num_groups: int,
    axis: int,
    sample_axis: int,
    epsilon: float,
) -> jax.Array:
    shape = y.shape
    parts = (num_groups, shape[axis] // num_groups)
    split = (*shape[:axis], *parts, *shape[axis + 1 :])  # the feature axis as (group, channel)
    y = y.reshape(split)
    sample = sample_axis + (sample_axis > axis)
    reduced = tuple(i for i in range(y.ndim) if i not in (axis, sample))
    wide = jnp.promote_types(y.dtype, jnp.float32)  # sums overflow in half precision
    where = None if mask is None else mask.reshape(split)
    if where is None:

        def average(values: jax.Array) -> jax.Array:
            return jnp.mean(values, reduced, wide, keepdims=True).astype(y.dtype)
    else:
        # What is not finite in masked places must reach no sum, nor the gradient of one.
        y = jnp.where(where | jnp.isfinite(y), y, 0)
        count = where.sum(reduced, dtype=wide, keepdims=True)

        def average(values: jax.Array) -> jax.Array:
            total = jnp.sum(jnp.where(where, values, 0), reduced, wide, keepdims=True)
            return (total / jnp.maximum(count, 1)).astype(y.dtype)

    mean = average(y)
    z = y - mean
    valid = z if where is None else jnp.where(where, z, 0)
    var = average(jnp.square(valid)) + epsilon
    if where is not None:
        var = jnp.where(count > 0, var, 1)  # a group without a valid value: the numbers as they are
    slope = lax.rsqrt(var)
    if scale is not None:
        slope = slope * spread(scale.astype(y.dtype), axis, y.ndim)
    out = z * slope
    if bias is not None:
        out = out + spread(bias.astype(y.dtype), axis, y.ndim)
    return out.reshape(shape)
