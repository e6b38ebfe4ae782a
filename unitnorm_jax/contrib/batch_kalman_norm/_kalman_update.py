"""The update of Batch Kalman Normalization: predicted and observed moments as one mixture."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from unitnorm_jax.contrib.batch_kalman_norm._moments import Moments
from unitnorm_jax.functional._numerics.arguments import is_within
from unitnorm_jax.functional._numerics.batch_statistics import hashable_groups
from unitnorm_jax.functional._numerics.devices import average


def kalman_update(
    prediction: Moments,
    observed: Moments,
    *,
    gain: Shaped[Array, ""] | float | int = 0.1,
    guard: Shaped[Array, ""] | float | int = 100.0,
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
        gain: weight of the observation, in [0, 1]; 1 ignores the prediction; may be traced.
        guard: see above; ``math.inf`` for none against finite ratios.
        axis_name: mapped axis whose devices hold further slices: one decision for them all.
        axis_index_groups: groups of indices within that axis, with a decision each.

    Returns:
        The posterior moments, (slices, channels).

    Raises:
        ValueError: ``gain`` or ``guard`` is out of its range, or shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.contrib.batch_kalman_norm import Moments, kalman_update
        >>> predicted = Moments(mean=jnp.array([[0.0]]), var=jnp.array([[1.0]]))
        >>> observed = Moments(mean=jnp.array([[2.0]]), var=jnp.array([[3.0]]))
        >>> mean, var = kalman_update(predicted, observed, gain=0.5)
        >>> float(mean[0, 0]), float(var[0, 0])
        (1.0, 3.0)

    References:
        Guangrun Wang, Jiefeng Peng, Ping Luo, Xinjiang Wang and Liang Lin, `Kalman Normalization:
        Normalizing Internal Representations Across Network Layers
        <https://arxiv.org/abs/1802.03133>`_, NeurIPS 2018. The guard, and that it is one decision,
        is in the authors' code; their ``p_rate`` is 1 - gain.
    """
    check_gain(gain, guard)
    check_prediction(prediction, observed.mean.shape)
    ratio = average(
        jnp.mean(prediction.var / observed.var), axis_name, hashable_groups(axis_index_groups)
    )
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


def check_gain(
    gain: Shaped[Array, ""] | float | int, guard: Shaped[Array, ""] | float | int = 1.0
) -> None:
    """Raise unless 0 <= gain <= 1 and guard > 0."""
    if not is_within(gain, 0, 1):
        raise ValueError(
            f"`gain` (={gain!r}) must be in [0, 1]: it is the weight of the observed moments, and "
            "1 - gain that of the predicted ones."
        )
    if not (is_within(guard, 5e-324) or guard == math.inf):  # 5e-324: the least positive number
        raise ValueError(
            f"`guard` (={guard!r}) must be positive: it is the ratio of predicted to observed "
            "variance from which a prediction is ignored; the authors use 100."
        )


def check_prediction(prediction: Moments, shape: tuple[int, ...]) -> None:
    """Raise unless there is a prediction for every slice, or one for all."""
    allowed = (shape, (1, *shape[1:]))
    for name, value in prediction._asdict().items():
        if value.shape not in allowed:
            raise ValueError(
                f"`prediction.{name}` has shape {value.shape}, but must be (slices, channels) = "
                f"{shape}, or {allowed[1]} for all slices alike."
            )
