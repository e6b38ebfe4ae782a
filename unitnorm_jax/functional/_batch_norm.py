"""Plain batch normalization as a pure function: ``flax.linen.BatchNorm``, exact."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.functional._numerics import arguments
from unitnorm_jax.functional._numerics.axes import check_axes
from unitnorm_jax.functional._numerics.batch_norm import (
    channel_arguments,
    normalize_by_batch,
    normalize_by_statistics,
)
from unitnorm_jax.functional._numerics.batch_statistics import (
    BatchStats,
    Reduction,
    hashable_groups,
    update_stats,
)


def batch_norm(
    x: Shaped[Array, "..."],
    stats: BatchStats,
    scale: Shaped[Array, "..."] | None = None,
    bias: Shaped[Array, "..."] | None = None,
    *,
    use_running_average: bool,
    axis: int | Sequence[int] = -1,
    momentum: Any = 0.99,
    epsilon: Any = 1e-5,
    dtype: Any = None,
    axis_name: str | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    mask: Shaped[Array, "..."] | None = None,
    use_fast_variance: bool = True,
) -> tuple[Float[Array, "..."], BatchStats]:
    r"""Batch normalization, as ``flax.linen.BatchNorm`` but exact where the mean is large.

    ::

        y = scale_c * (x - mean_c) / sqrt(var_c + epsilon) + bias_c

    mean and var are those of the batch in training, the running ones at inference. Flax's one pass,
    ``E x^2 - (E x)^2``, loses every digit of the variance where the mean is some thousand standard
    deviations; here a second pass is taken where digits would be lost.

    Args:
        x: input, of rank >= 2.
        stats: running statistics, of the shape of the feature axes. Their dtype is kept.
        scale: scales, of that shape (default: 1).
        bias: biases, of that shape (default: 0).
        use_running_average: normalize with ``stats`` (inference).
        axis: the feature axis or axes.
        momentum: decay rate of the running statistics: new = momentum * old + (1 - momentum) *
            batch; may be traced.
        epsilon: added to the variance.
        dtype: dtype of the result (default: that of x, scale and bias together).
        axis_name: mapped axis over whose devices statistics are taken.
        axis_index_groups: groups of indices within that axis, to share statistics in groups.
        mask: True where a value takes part in the statistics; broadcastable to x. Other places are
            normalized too.
        use_fast_variance: one pass over x, and a second only where it would lose digits. False:
            always two.

    Returns:
        The normalized input, and the updated running statistics (``stats`` itself at inference).

    Raises:
        ValueError: an argument is out of its range, or shapes do not fit.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.functional import BatchStats, batch_norm
        >>> x = 1e4 + jax.random.normal(jax.random.key(0), (1000, 6))
        >>> stats = BatchStats(mean=jnp.zeros(6), var=jnp.ones(6))
        >>> y, stats = batch_norm(x, stats, use_running_average=False)
        >>> bool(jnp.allclose(y.std(0), 1, atol=1e-4))
        True
    """
    arguments.check_hyperparameters(momentum, epsilon)
    x = jnp.asarray(x)
    features = check_axes(x.shape, axis)
    shape = tuple(x.shape[i] for i in features)
    for name, value in {"scale": scale, "bias": bias, **stats._asdict()}.items():
        if value is not None:
            arguments.check_features(name, value, shape)
    if mask is not None:
        mask = arguments.check_mask(mask, x.shape)
    # Several feature axes are one: moved to the end, unless they are there.
    last = tuple(range(x.ndim - len(features), x.ndim))
    together = len(features) > 1

    def joined(value: jax.Array) -> jax.Array:
        value = jnp.moveaxis(value, features, last)
        return value.reshape(*value.shape[: last[0]], math.prod(shape))

    def flat(value: jax.Array | None) -> jax.Array | None:
        return value if value is None else value.reshape(math.prod(shape))

    args = channel_arguments(
        joined(x) if together else x,
        BatchStats(*(value.reshape(math.prod(shape)) for value in stats)),
        flat(scale),
        flat(bias),
        -1 if together else features[0],
        joined(mask) if together and mask is not None else mask,
        dtype,
        empty=use_running_average,
    )
    options: dict[str, Any] = {
        "axis": args.axis,
        "epsilon": arguments.weak(epsilon),
        "dtype": args.result_dtype,
    }
    if use_running_average:
        mean, var = (value.reshape(-1).astype(args.compute_dtype) for value in stats)
        y = normalize_by_statistics(args.x, *args.affine, mean, var, mask=args.mask, **options)
    else:
        reduction = Reduction(
            axis_name=axis_name,
            axis_index_groups=hashable_groups(axis_index_groups),
            guarded=x.dtype != jnp.bfloat16,
            two_pass=not use_fast_variance,
        )
        y, mean, var, count = normalize_by_batch(
            args.x, args.mask, *args.affine, reduction=reduction, **options
        )
        decay = arguments.weak(momentum), arguments.weak(1 - momentum)
        stats = update_stats(stats, mean, var, count, decay)
    if together:
        y = jnp.moveaxis(y.reshape(*y.shape[:-1], *shape), last, features)
    return y.astype(args.result_dtype), stats
