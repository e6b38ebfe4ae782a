"""Unitized batch normalization as a pure function (plain form, replaced below)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype


class BatchStats(NamedTuple):
    """Running statistics of a batch normalization: ``mean`` and ``var``, one per feature."""

    mean: jax.Array
    var: jax.Array


def unitized_batch_norm(
    x: jax.Array,
    stats: BatchStats,
    alpha: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    use_running_average: bool,
    axis: int = -1,
    sample_axis: int = 0,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    dtype: Any = None,
    unit: str | float = "reference",
    bessel_correction: bool = False,
    axis_name: str | None = None,
    axis_index_groups: Any = None,
    mask: jax.Array | None = None,
    use_fast_variance: bool = True,
    force_float32_reductions: bool = True,
) -> tuple[jax.Array, BatchStats]:
    red = tuple(range(x.ndim - 1))
    xf = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if use_running_average:
        mean, var = stats
    else:
        mean = xf.mean(red)
        var = jnp.square(xf - mean).mean(red)
        stats = BatchStats(
            momentum * stats.mean + (1 - momentum) * mean,
            momentum * stats.var + (1 - momentum) * var,
        )
    xhat = (xf - mean) * jax.lax.rsqrt(var + epsilon)
    size = xf[0, ..., 0].size
    channels = x.shape[-1]
    kappa = {"reference": 1 / size, "sample": size, "rms": 1 / channels, "position": 1.0}.get(unit, unit)
    s = kappa * jnp.square(xhat).sum(red[1:] + (x.ndim - 1,), keepdims=True) / size
    y = xhat * (alpha * jax.lax.rsqrt(s + epsilon) + (1 - alpha))
    y = y * (1.0 if scale is None else scale) + (0.0 if bias is None else bias)
    args = [a for a in (x, scale, bias) if a is not None]
    return y.astype(canonicalize_dtype(*args, dtype=dtype)), stats
