"""Batch normalization by running estimates, for batches too small to have statistics."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.functional._numerics import arguments
from unitnorm_jax.functional._numerics.arguments import is_within
from unitnorm_jax.functional._numerics.batch_norm import (
    channel_arguments,
    normalize_by_statistics,
    spread,
)
from unitnorm_jax.functional._numerics.batch_statistics import (
    BatchStats,
    Reduction,
    hashable_groups,
    shown,
)


def estimated_batch_norm(
    x: Shaped[Array, "..."],
    stats: BatchStats,
    scale: Shaped[Array, "..."] | None = None,
    bias: Shaped[Array, "..."] | None = None,
    *,
    use_running_average: bool,
    rate: Shaped[Array, ""] | float | int,
    axis: int = -1,
    epsilon: Any = 1e-5,
    dtype: Any = None,
    axis_name: str | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    mask: Shaped[Array, "..."] | None = None,
) -> tuple[Float[Array, "..."], BatchStats]:
    r"""Batch normalization whose statistics are estimates, in training as at inference.

    In training the estimates move first, and then normalize the batch that moved them. With m
    running over batch and positions, and r the rate::

        mean_new = (1 - r) * mean + r * average_m x
        var_new  = (1 - r) * var  + r * average_m (x - mean)^2      about the OLD mean
        y        = scale * (x - mean_new) / sqrt(var_new + epsilon) + bias

    The estimates are constants for autodiff: no gradient flows through them, nor to ``stats``.
    So the layer works for batches of any size, down to one value per channel.

    The order of the updates, the old mean and the missing gradient are the published code's (class
    ``EstBN``), and so is epsilon. There r is a buffer that starts at 0 and that no file sets: the
    estimates then never move. Here it must be given. While the mean still moves, the second moment
    about the old one is too large, by (average_m x - mean)^2 in expectation (derived here).

    Args:
        x: input, of rank >= 2 and a floating dtype.
        stats: estimates; ``mean`` and ``var`` have the shape (channels,). Their dtype is kept.
        scale: scales, (channels,) (default: 1).
        bias: biases, (channels,) (default: 0).
        use_running_average: normalize with ``stats`` as they are (inference).
        rate: weight of the batch in the new estimates, in [0, 1]; may be traced. The paper's is not
            known for certain; the learning rate is said to be.
        axis: the feature axis.
        epsilon: added to the variance.
        dtype: dtype of the result (default: that of x, scale and bias together).
        axis_name: mapped axis (``pmap``, ``shard_map``, ``vmap``) over whose devices the batch is
            split: sums and counts are added, in one collective.
        axis_index_groups: groups of indices within that axis, to share statistics in groups.
        mask: True where a value takes part in the estimates; broadcastable to x. Other places are
            normalized too.

    Returns:
        The normalized input, and the new estimates (``stats`` itself at inference). Those of a
        channel without a valid value stay as they are.

    Raises:
        ValueError: an argument is out of its range, or shapes do not fit.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.functional import BatchStats
        >>> from unitnorm_jax.contrib.estimated_batch_norm import estimated_batch_norm
        >>> stats = BatchStats(mean=jnp.zeros(6), var=jnp.ones(6))
        >>> for key in jax.random.split(jax.random.key(0), 300):  # batches of one sample
        ...     x = 5 + 3 * jax.random.normal(key, (1, 4, 4, 6))
        ...     y, stats = estimated_batch_norm(x, stats, use_running_average=False, rate=0.03)
        >>> bool(jnp.allclose(stats.mean, 5, atol=1)), bool(jnp.allclose(stats.var, 9, atol=3))
        (True, True)

    References:
        Siyuan Qiao, Huiyu Wang, Chenxi Liu, Wei Shen and Alan Yuille, `Rethinking Normalization and
        Elimination Singularity in Neural Networks <https://arxiv.org/abs/1911.09738>`_, 2019. Code:
        joe-siyuan-qiao/Batch-Channel-Normalization.
    """
    arguments.check_epsilon(epsilon)
    check_rate(rate)
    args = channel_arguments(x, stats, scale, bias, axis, mask, dtype, empty=use_running_average)
    mean, var = (value.astype(args.compute_dtype) for value in stats)
    normalize = functools.partial(
        normalize_by_statistics,
        axis=args.axis,
        epsilon=epsilon,
        mask=args.mask,
        dtype=args.result_dtype,
    )
    if use_running_average:
        y = normalize(args.x, *args.affine, mean, var)
    else:
        reduction = Reduction(axis_name, hashable_groups(axis_index_groups), False, False)
        moved, var, step = lax.stop_gradient(
            _move(args.x, args.mask, mean, var, rate, args.axis, reduction)
        )
        # About the old mean first, if it is near: a large mean is rounded, and its step is not.
        near = jnp.abs(step) < jnp.abs(moved)
        shift = jnp.where(near, lax.stop_gradient(mean), moved)
        z = args.x.astype(moved.dtype) - spread(shift, args.axis, x.ndim)
        y = normalize(z, *args.affine, jnp.where(near, step, 0), shown(var))
        stats = BatchStats(moved.astype(stats.mean.dtype), var.astype(stats.var.dtype))
    return y.astype(args.result_dtype), stats


def check_rate(rate: Any) -> None:
    """Raise unless a rate that is known at trace time is in [0, 1]."""
    if not is_within(rate, 0, 1):
        raise ValueError(
            f"`rate` (={rate!r}) must be in [0, 1]: it is the weight of the batch in the "
            "estimates, new = (1 - rate) * old + rate * batch; 0 leaves them as they are."
        )


def _move(
    x: jax.Array,
    mask: jax.Array | None,
    mean: jax.Array,
    var: jax.Array,
    rate: Any,
    axis: int,
    reduction: Reduction,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the new mean and variance, and by how much the mean moved."""
    reduced = tuple(i for i in range(x.ndim) if i != axis)
    x = x.astype(mean.dtype)
    z = x - spread(mean, axis, x.ndim)
    ones = jnp.ones_like(z, bool) if mask is None else mask
    x, z = (jnp.where(ones, a, 0) for a in (x, z))
    parts = [x.sum(reduced), z.sum(reduced), jnp.square(z).sum(reduced)]
    parts.append(ones.sum(reduced, dtype=mean.dtype))
    sum0, sum1, sum2, count = reduction.psum(jnp.stack(parts))
    some = jnp.maximum(count, 1)
    rate = jnp.where(count > 0, jnp.asarray(rate, mean.dtype), 0)
    # The batch's mean, from the smaller of two sums: that about 0, or about the old mean.
    near = jnp.abs(sum1) <= jnp.abs(sum0)
    batch = jnp.where(near, mean + sum1 / some, sum0 / some)
    moved = (1 - rate) * mean + rate * batch
    return moved, (1 - rate) * var + rate * (sum2 / some), rate * (sum1 / some)
