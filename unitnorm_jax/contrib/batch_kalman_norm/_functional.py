"""Batch Kalman Normalization as a pure function; its predictions are in ``moments.py``."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.contrib.batch_kalman_norm._kalman_update import (
    check_gain,
    check_prediction,
    kalman_update,
)
from unitnorm_jax.contrib.batch_kalman_norm._moments import Moments
from unitnorm_jax.functional._numerics import arguments
from unitnorm_jax.functional._numerics.batch_norm import channel_arguments
from unitnorm_jax.functional._numerics.batch_statistics import (
    BatchStats,
    hashable_groups,
    inverse_std,
    number_of,
    update_stats,
)
from unitnorm_jax.functional._numerics.devices import (
    Groups,
    average,
    check_bound,
    fewest,
    number,
)
from unitnorm_jax.functional._numerics.scaling import one_number


def batch_kalman_norm(
    x: Shaped[Array, "..."],
    stats: BatchStats,
    prediction: Moments | None,
    scale: Shaped[Array, "..."] | None = None,
    bias: Shaped[Array, "..."] | None = None,
    *,
    use_running_average: bool,
    axis: int = -1,
    slice_size: int | None = None,
    gain: Shaped[Array, ""] | float | int = 0.1,
    guard: Shaped[Array, ""] | float | int = 100.0,
    momentum: Any = 0.9,
    epsilon: Any = 1e-5,
    bessel_correction: bool = False,
    dtype: Any = None,
    axis_name: str | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
) -> tuple[Float[Array, "..."], Moments, BatchStats]:
    r"""Normalize small slices of a batch by a Kalman estimate of their moments.

    The batch is cut into slices of consecutive samples. For each slice, with the moments
    (mean_obs, var_obs) of its values, per channel::

        mean, var = kalman_update((mean_pred, var_pred), (mean_obs, var_obs))
        y         = scale * (x - mean) / sqrt(var + epsilon) + bias

    The prediction comes from the layer before (see ``relu_moments``, ``linear_moments``,
    ``sampled_moments``); the first layer has none, and uses what it observes. At ``gain=1`` the
    layer is batch normalization of each slice. At inference it is batch normalization with
    running statistics: neither slices nor predictions matter.

    Running statistics follow the posterior of the FIRST slice (of the first device of a mapped
    axis), as in the authors' code. Gradients flow through prediction and observation.

    Args:
        x: input, of rank >= 2 and a floating dtype; axis 0 is the batch.
        stats: running statistics, (channels,) each. Their dtype is kept.
        prediction: predicted moments, (slices, channels), or (1, channels) for all slices alike;
            None for the first layer of a network.
        scale: scales, (channels,) (default: 1).
        bias: biases, (channels,) (default: 0).
        use_running_average: normalize with ``stats`` (inference).
        axis: the feature axis; not 0.
        slice_size: samples of a slice; must divide the batch. None: the batch is one slice, over
            all devices of ``axis_name``.
        gain: weight of the observation against the prediction, in [0, 1]. The authors use 0.1 for
            slices of 2 images and 0.95 for one slice of 128.
        guard: predictions are ignored where the mean of var_pred / var_obs is not below this.
        momentum: decay rate of the running statistics: new = momentum * old + (1 - momentum) *
            first.
        epsilon: added to the variance.
        bessel_correction: without a prediction, hand on and average the variance times M / (M - 1)
            for M values of a slice, as the authors' code does (it normalizes with the biased one,
            and with 1.001e-5 where 1e-5 is asked for). Default: the biased variance.
        dtype: dtype of the result (default: that of x, scale and bias together).
        axis_name: mapped axis (``pmap``, ``shard_map``, ``vmap``) over whose devices the batch is
            spread. Each device cuts its own samples into slices; the guard and the running
            statistics are those of the whole batch.
        axis_index_groups: groups of indices within that axis, each with a batch of its own.

    Returns:
        The normalized input; the posterior moments of x, (slices, channels) or at inference
        (1, channels), for the next prediction; and the updated running statistics (``stats`` itself
        at inference).

    Raises:
        ValueError: an argument is out of its range, or shapes do not fit.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.functional import BatchStats
        >>> from unitnorm_jax.contrib.batch_kalman_norm import batch_kalman_norm
        >>> x = jax.random.normal(jax.random.key(0), (6, 4, 4, 3))
        >>> stats = BatchStats(mean=jnp.zeros(3), var=jnp.ones(3))
        >>> y, posterior, stats = batch_kalman_norm(
        ...     x, stats, None, use_running_average=False, slice_size=2)
        >>> y.shape, posterior.mean.shape
        ((6, 4, 4, 3), (3, 3))

    References:
        Guangrun Wang, Jiefeng Peng, Ping Luo, Xinjiang Wang and Liang Lin, `Kalman Normalization:
        Normalizing Internal Representations Across Network Layers
        <https://arxiv.org/abs/1802.03133>`_, NeurIPS 2018, and its code,
        wanggrun/Kalman-Normalization. Slices across devices are derived here.
    """
    check_gain(gain, guard)
    arguments.check_hyperparameters(momentum, epsilon)
    groups = hashable_groups(axis_index_groups)
    args = channel_arguments(x, stats, scale, bias, axis, None, dtype, 0, empty=use_running_average)
    compute_dtype = args.compute_dtype

    z = jnp.moveaxis(args.x, args.axis, -1)
    if use_running_average:
        rows = z[None].astype(compute_dtype)
        shift, var = (s.astype(compute_dtype)[None] for s in stats)
        about = Moments(jnp.zeros_like(shift), var)
        rows = rows - _spread(shift, rows.ndim)
    else:
        slices = 1 if slice_size is None else _slices(x.shape[0], slice_size)
        size = z.shape[0] // slices  # (n, ..., c) -> (slices, n / slices, ..., c)
        rows = z.reshape(slices, size, *z.shape[1:]).astype(compute_dtype)
        whole = axis_name if slice_size is None else None
        rows, shift, about = _observe(rows, whole, groups)
        if prediction is not None:
            check_prediction(prediction, about.mean.shape)
            # A mixture is the same mixture about any shift.
            mean, var = (p.astype(compute_dtype) for p in prediction)
            about = kalman_update(
                Moments(mean - shift, jnp.broadcast_to(var, shift.shape)),
                about,
                gain=gain,
                guard=guard,
                axis_name=axis_name,
                axis_index_groups=axis_index_groups,
            )
    mean, var = (_spread(p, rows.ndim) for p in about)
    slope, offset = (_spread(p[None], rows.ndim) for p in args.affine)
    inverse = lax.rsqrt(var + epsilon) if use_running_average else inverse_std(var, epsilon)
    y = (rows - mean) * inverse * slope + offset
    y = jnp.moveaxis(y.reshape(z.shape), -1, args.axis).astype(args.result_dtype)
    posterior = about._replace(mean=shift + about.mean)
    if use_running_average:
        return y, posterior, stats

    if bessel_correction and prediction is None:
        count = math.prod(rows.shape[1:-1])
        one = isinstance(count, int) and count < 2  # a symbolic number of values is not known
        if one and (whole is None or fewest(whole, groups) < 2):
            raise ValueError(
                "`bessel_correction` needs at least two values per slice and channel; the slices "
                f"of the input of shape {x.shape} have one. Make `slice_size` larger."
            )
        values = number_of(count, compute_dtype) * number(whole, groups)
        posterior = posterior._replace(var=posterior.var * (values / (values - 1)))
    decay = arguments.weak(momentum), arguments.weak(1 - momentum)
    first = Moments(*(p[0] for p in posterior))
    if slice_size is not None and axis_name is not None:
        first = _of_first_device(first, axis_name, groups)
    return y, posterior, update_stats(stats, *first, 1.0, decay)


def _slices(samples: int, slice_size: int) -> int:
    whole = isinstance(slice_size, numbers.Integral) and not isinstance(slice_size, bool)
    if not whole or slice_size < 1 or samples % slice_size:
        raise ValueError(
            f"`slice_size` (={slice_size!r}) must be positive and divide the number of samples "
            f"(={samples}): slices are blocks of consecutive samples, all of one size."
        )
    return samples // slice_size


def _observe(
    rows: jax.Array, axis_name: str | None, groups: Groups
) -> tuple[jax.Array, jax.Array, Moments]:
    """Return the slices about a shift, the shift, and their mean and biased variance about it.

    The shift is the mean to rounding, a constant for autodiff; what it is off by is seen in the
    second pass: exact whatever the mean.
    """
    over = tuple(range(1, rows.ndim - 1))
    shift = one_number(lax.stop_gradient(average(rows.mean(over), axis_name, groups)))
    rows = rows - _spread(shift, rows.ndim)
    sums = jnp.stack([rows.mean(over), jnp.square(rows).mean(over)])
    mean, square = average(sums, axis_name, groups)
    return rows, shift, Moments(mean, jnp.maximum(square - jnp.square(mean), 0))


def _spread(value: jax.Array, ndim: int) -> jax.Array:
    """(slices, channels), to broadcast with (slices, n, ..., channels)."""
    return jnp.expand_dims(value, tuple(range(1, ndim - 1)))


def _of_first_device(first: Moments, axis_name: str, groups: Groups) -> Moments:
    check_bound(axis_name)
    leaders = jnp.array([0] if groups is None else [group[0] for group in groups])
    leads = jnp.any(leaders == lax.axis_index(axis_name))
    kept = jnp.where(leads, jnp.stack(first), 0)
    return Moments(*lax.psum(kept, axis_name, axis_index_groups=groups))
