"""Unitized batch normalization written straight from the formulas: the oracle of the tests.

The same code runs in numpy (values) and, with ``xp=jax.numpy`` under x64, gives gradients. At
masked places ``x`` must be finite here; ``unitnorm_jax`` promises more.
"""

import math
from typing import Any, NamedTuple

import numpy as np


class Result(NamedTuple):
    y: Any
    batch_mean: Any
    batch_var: Any
    mean: Any
    var: Any


def unitized_batch_norm(
    x: Any,
    mean: Any,
    var: Any,
    alpha: Any,
    scale: Any = None,
    bias: Any = None,
    *,
    use_running_average: bool,
    axis: int | tuple[int, ...] = -1,
    sample_axis: int = 0,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    unit: str | float = "reference",
    bessel_correction: bool = False,
    mask: Any = None,
    xp: Any = np,
) -> Result:
    """Output, the statistics that normalised, and the running averages afterwards."""
    features = tuple(sorted(a % x.ndim for a in ((axis,) if isinstance(axis, int) else axis)))
    positions = tuple(a for a in range(x.ndim) if a not in features and a != sample_axis % x.ndim)
    reduced = tuple(a for a in range(x.ndim) if a not in features)
    shape = [x.shape[a] for a in features]
    channels = math.prod(shape)

    def per_channel(p: Any) -> Any:  # shape -> broadcastable to x
        return xp.reshape(p, [x.shape[a] if a in features else 1 for a in range(x.ndim)])

    valid = xp.broadcast_to(True if mask is None else mask, x.shape).astype(x.dtype)

    if use_running_average:
        mu, v = per_channel(mean), per_channel(var)
    else:
        count = xp.sum(valid, reduced, keepdims=True)
        mu = xp.sum(valid * x, reduced, keepdims=True) / count
        v = xp.sum(valid * (x - mu) ** 2, reduced, keepdims=True) / count
        if bessel_correction:
            v = v * count / (count - (1 + epsilon))
    batch_mean, batch_var = xp.reshape(mu, shape), xp.reshape(v, shape)
    if not use_running_average:
        mean = momentum * mean + (1 - momentum) * batch_mean
        var = momentum * var + (1 - momentum) * batch_var

    xhat = (x - mu) / xp.sqrt(v + epsilon)
    energy = valid * xhat**2
    if unit == "position":
        s = xp.sum(energy, features, keepdims=True)
    else:
        p = xp.maximum(xp.sum(valid, positions, keepdims=True), 1.0)  # 1: no valid position
        kappas: dict[Any, Any] = {"reference": 1 / p, "sample": p, "rms": 1 / channels}
        kappa = kappas.get(unit, unit)
        mean_square = xp.sum(energy, positions, keepdims=True) / p
        s = xp.sum(kappa * mean_square, features, keepdims=True)
    a = per_channel(alpha)
    y = xhat * (a / xp.sqrt(s + epsilon) + (1 - a))
    if scale is not None:
        y = y * per_channel(scale)
    if bias is not None:
        y = y + per_channel(bias)
    return Result(y, batch_mean, batch_var, mean, var)
