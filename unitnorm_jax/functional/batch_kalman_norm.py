"""Batch Kalman Normalization as a pure function; its predictions are in ``moments.py``."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.functional import _arguments
from unitnorm_jax.functional._batch_norm import channel_arguments
from unitnorm_jax.functional._batch_statistics import BatchStats, update_stats
from unitnorm_jax.functional.moments import Moments


def kalman_update(
    prediction: Moments,
    observed: Moments,
    *,
    gain: float | int = 0.1,
    guard: float | int = 100.0,
    axis_name: str | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
) -> Moments:
    r"""Posterior moments from predicted and observed ones, with a fixed gain q.

        mean = (1 - q) mean_pred + q mean_obs
        var  = (1 - q) var_pred  + q var_obs + q (1 - q) (mean_obs - mean_pred)^2

    These are the exact moments of a mixture of the two distributions with weights 1 - q and q.
    The guard is one decision for all: where the mean over slices and channels of
    ``var_pred / var_obs`` is not below ``guard`` (or is NaN) the prediction is of no use, and the
    posterior is what was observed. No gradient reaches the prediction then.

    Args:
      prediction: (slices, channels), or (1, channels) for all slices alike.
      observed: moments of the slices, (slices, channels).
      gain: weight of the observation, in [0, 1]; 1 ignores the prediction.
      guard: see above; ``math.inf`` for none against finite ratios.
      axis_name: mapped axis whose devices hold further slices: one decision for them all.
      axis_index_groups: groups of indices within that axis, with a decision each.

    Returns:
      The posterior moments, (slices, channels).

    Raises:
      ValueError: ``gain`` or ``guard`` is out of its range, or shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from unitnorm_jax.functional import Moments, kalman_update
      >>> predicted = Moments(mean=jnp.array([[0.0]]), var=jnp.array([[1.0]]))
      >>> observed = Moments(mean=jnp.array([[2.0]]), var=jnp.array([[3.0]]))
      >>> mean, var = kalman_update(predicted, observed, gain=0.5)
      >>> float(mean[0, 0]), float(var[0, 0])
      (1.0, 3.0)

    References:
      Guangrun Wang, Jiefeng Peng, Ping Luo, Xinjiang Wang and Liang Lin, `Kalman Normalization:
      Normalizing Internal Representations Across Network Layers <https://arxiv.org/abs/1802.03133>`_,
      NeurIPS 2018. The guard, and that it is one decision, is in the authors' code; their
      ``p_rate`` is 1 - gain.
    """
    check_gain(gain, guard)
    _check_prediction(prediction, observed.mean.shape)
    ratio = jnp.mean(prediction.var / observed.var)
    if axis_name is not None:
        ratio = lax.pmean(ratio, axis_name, axis_index_groups=axis_index_groups)
    applies = lax.stop_gradient(ratio) < guard
    # Two selections, so that what is not finite in a rejected prediction reaches no gradient.
    mean, var = (
        jnp.where(applies, p, lax.stop_gradient(o))
        for p, o in zip(prediction, observed, strict=True)
    )
    posterior = Moments(
        mean=(1 - gain) * mean + gain * observed.mean,
        var=(1 - gain) * var
        + gain * observed.var
        + gain * (1 - gain) * jnp.square(observed.mean - mean),
    )
    return Moments(*(jnp.where(applies, p, o) for p, o in zip(posterior, observed, strict=True)))


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
    gain: float | int = 0.1,
    guard: float | int = 100.0,
    momentum: float | int = 0.9,
    epsilon: float | int = 1e-5,
    bessel_correction: bool = False,
    dtype: Any = None,
    axis_name: str | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    force_float32_reductions: bool = True,
) -> tuple[Float[Array, "..."], Moments, BatchStats]:
    r"""Normalization of small slices of a batch by a Kalman estimate of their moments.

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
      momentum: decay rate of the running statistics: new = momentum * old + (1 - momentum) * first.
      epsilon: added to the variance.
      bessel_correction: without a prediction, hand on and average the variance times M / (M - 1)
        for M values of a slice, as the authors' code does (it normalizes with the biased one, and
        with 1.001e-5 where 1e-5 is asked for). Default: the biased variance.
      dtype: dtype of the result (default: that of x, scale and bias together).
      axis_name: mapped axis (``pmap``, ``shard_map``, ``vmap``) over whose devices the batch is
        spread. Each device cuts its own samples into slices; the guard and the running
        statistics are those of the whole batch.
      axis_index_groups: groups of indices within that axis, each with a batch of its own.
      force_float32_reductions: compute in at least float32.

    Returns:
      The normalized input; the posterior moments of x, (slices, channels) or at inference
      (1, channels), for the next prediction; and the updated running statistics (``stats`` itself
      at inference).

    Raises:
      ValueError: an argument is out of its range, or shapes do not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from unitnorm_jax.functional import BatchStats, batch_kalman_norm
      >>> x = jax.random.normal(jax.random.key(0), (6, 4, 4, 3))
      >>> stats = BatchStats(mean=jnp.zeros(3), var=jnp.ones(3))
      >>> y, posterior, stats = batch_kalman_norm(
      ...     x, stats, None, use_running_average=False, slice_size=2)
      >>> y.shape, posterior.mean.shape
      ((6, 4, 4, 3), (3, 3))

    References:
      Guangrun Wang, Jiefeng Peng, Ping Luo, Xinjiang Wang and Liang Lin, `Kalman Normalization:
      Normalizing Internal Representations Across Network Layers <https://arxiv.org/abs/1802.03133>`_,
      NeurIPS 2018, and its code, wanggrun/Kalman-Normalization. Slices across devices are
      derived here.
    """
    check_gain(gain, guard)
    _arguments.check_hyperparameters(float(momentum), float(epsilon))
    args = channel_arguments(x, stats, scale, bias, axis, None, dtype, 0)
    compute_dtype = args.compute_dtype

    z = jnp.moveaxis(x, args.axis, -1)
    if use_running_average:
        rows = z[None]
        posterior = Moments(*(s.astype(compute_dtype)[None] for s in stats))
    else:
        slices = 1 if slice_size is None else _slices(len(x), slice_size)
        rows = z.reshape(slices, -1, *z.shape[1:])  # (n, ..., c) -> (slices, n / slices, ..., c)
        whole = axis_name if slice_size is None else None
        observed = _observe(rows.astype(compute_dtype), whole, axis_index_groups)
        posterior = observed
        if prediction is not None:
            prediction = Moments(*(p.astype(compute_dtype) for p in prediction))
            posterior = kalman_update(
                prediction,
                observed,
                gain=gain,
                guard=guard,
                axis_name=axis_name,
                axis_index_groups=axis_index_groups,
            )
    mean, var = (_spread(p, rows.ndim) for p in posterior)
    slope, offset = (_spread(p[None], rows.ndim) for p in args.affine)
    y = (rows.astype(compute_dtype) - mean) * lax.rsqrt(var + epsilon) * slope + offset
    y = jnp.moveaxis(y.reshape(z.shape), -1, args.axis).astype(args.result_dtype)
    if use_running_average:
        return y, posterior, stats

    count = float(math.prod(rows.shape[1:-1]))
    if bessel_correction and prediction is None:
        if whole is not None:
            count *= lax.psum(1, whole, axis_index_groups=axis_index_groups)
        if count < 2:
            raise ValueError(
                "`bessel_correction` needs at least two values per slice and channel; the slices "
                f"of the input of shape {x.shape} have one. Make `slice_size` larger."
            )
        posterior = posterior._replace(var=posterior.var * (count / (count - 1)))
    first = Moments(*(p[0] for p in posterior))
    if slice_size is not None and axis_name is not None:
        first = _of_first_device(first, axis_name, axis_index_groups)
    return y, posterior, update_stats(stats, *first, count, float(momentum))


def check_gain(gain: float | int, guard: float | int = 1.0) -> None:
    """Raise unless 0 <= gain <= 1 and guard > 0."""
    if not 0 <= gain <= 1:
        raise ValueError(
            f"`gain` (={gain}) must be in [0, 1]: it is the weight of the observed moments, and "
            "1 - gain that of the predicted ones."
        )
    if not guard > 0:
        raise ValueError(
            f"`guard` (={guard}) must be positive: it is the ratio of predicted to observed "
            "variance from which a prediction is ignored; the authors use 100."
        )


def _slices(samples: int, slice_size: int) -> int:
    if slice_size < 1 or samples % slice_size:
        raise ValueError(
            f"`slice_size` (={slice_size}) must be positive and divide the number of samples "
            f"(={samples}): slices are blocks of consecutive samples, all of one size."
        )
    return samples // slice_size


def _check_prediction(prediction: Moments, shape: tuple[int, ...]) -> None:
    allowed = (shape, (1, *shape[1:]))
    for name, value in prediction._asdict().items():
        if value.shape not in allowed:
            raise ValueError(
                f"`prediction.{name}` has shape {value.shape}, but must be (slices, channels) = "
                f"{shape}, or {allowed[1]} for all slices alike."
            )


def _observe(
    rows: jax.Array, axis_name: str | None, groups: Sequence[Sequence[int]] | None
) -> Moments:
    """Mean and biased variance of each slice, in two passes: exact whatever the mean."""

    def average(z: jax.Array) -> jax.Array:
        z = z.mean(tuple(range(1, z.ndim - 1)))
        return z if axis_name is None else lax.pmean(z, axis_name, axis_index_groups=groups)

    mean = average(rows)
    return Moments(mean, average(jnp.square(rows - _spread(mean, rows.ndim))))


def _spread(value: jax.Array, ndim: int) -> jax.Array:
    """(slices, channels), to broadcast with (slices, n, ..., channels)."""
    return jnp.expand_dims(value, tuple(range(1, ndim - 1)))


def _of_first_device(
    first: Moments, axis_name: str, groups: Sequence[Sequence[int]] | None
) -> Moments:
    leaders = jnp.array([0] if groups is None else [group[0] for group in groups])
    leads = jnp.any(leaders == lax.axis_index(axis_name))
    kept = jnp.where(leads, jnp.stack(first), 0)
    return Moments(*lax.psum(kept, axis_name, axis_index_groups=groups))
