"""Batch-channel normalization in float64 numpy, sample by sample and group by group."""

from typing import Any, NamedTuple

import numpy as np


class Result(NamedTuple):
    y: np.ndarray
    mean: np.ndarray
    var: np.ndarray


def batch_half(
    x: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    scale: Any = 1.0,
    bias: Any = 0.0,
    *,
    use_running_average: bool,
    rate: float | None = None,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    bessel_correction: bool = False,
    mask: np.ndarray | None = None,
) -> Result:
    """The first half of x, (samples, ..., channels)."""
    valid = np.broadcast_to(True if mask is None else mask, x.shape)
    mean, var = mean.astype(float), var.astype(float)
    mu, v = mean.copy(), var.copy()
    for c in range(x.shape[-1]):
        values = x[..., c][valid[..., c]].astype(float)
        if use_running_average or not len(values):
            continue
        if rate is not None:
            second = np.mean((values - mean[c]) ** 2)
            mean[c] = (1 - rate) * mean[c] + rate * np.mean(values)
            var[c] = (1 - rate) * var[c] + rate * second
            mu[c], v[c] = mean[c], var[c]
            continue
        mu[c], v[c] = np.mean(values), np.var(values)
        mean[c] = momentum * mean[c] + (1 - momentum) * mu[c]
        fed = np.var(values, ddof=1) if bessel_correction else v[c]
        var[c] = momentum * var[c] + (1 - momentum) * fed
    return Result((x - mu) / np.sqrt(v + epsilon) * scale + bias, mean, var)


def batch_channel_norm(
    x: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    scale: Any = 1.0,
    bias: Any = 0.0,
    group_scale: Any = None,
    group_bias: Any = None,
    *,
    num_groups: int,
    axis: int = -1,
    sample_axis: int = 0,
    epsilon: float = 1e-5,
    mask: np.ndarray | None = None,
    **batch: Any,
) -> Result:
    order = [sample_axis % x.ndim]
    order += [i for i in range(x.ndim) if i not in (order[0], axis % x.ndim)] + [axis % x.ndim]
    valid = np.broadcast_to(True if mask is None else mask, x.shape).transpose(order)
    first = batch_half(
        x.transpose(order), mean, var, scale, bias, epsilon=epsilon, mask=valid, **batch
    )
    y = first.y.copy()
    size = x.shape[axis] // num_groups
    for n in range(len(y)):
        for g in range(num_groups):
            group = y[n, ..., g * size : (g + 1) * size]
            values = group[valid[n, ..., g * size : (g + 1) * size]]
            if len(values):
                group[...] = (group - values.mean()) / np.sqrt(values.var() + epsilon)
            if group_scale is not None:
                group *= group_scale[g]
            if group_bias is not None:
                group += group_bias[g]
    return Result(y.transpose(np.argsort(order)), first.mean, first.var)
