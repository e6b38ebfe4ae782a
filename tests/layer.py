"""The functional layer under `jit`, with gradients, for comparison with an oracle."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from unitnorm_jax import functional


@functools.partial(jax.jit, static_argnames="config")
def _value_and_grads(params: Any, x: Any, stats: Any, dy: Any, mask: Any, config: Any) -> Any:
    def loss(params: Any, x: Any) -> Any:
        y, new_stats = functional.unitized_batch_norm(x, stats, **params, mask=mask, **dict(config))
        return jnp.sum(y.astype(dy.dtype) * dy), (y, new_stats)

    (_, out), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)
    return *out, grads[0] | {"x": grads[1]}


def value_and_grads(
    x: Any,
    mean: Any,
    var: Any,
    params: dict[str, Any],
    dy: Any,
    mask: Any = None,
    dtype: Any = None,
    **config: Any,
) -> tuple[jax.Array, functional.BatchStats, dict[str, jax.Array]]:
    """Output, new statistics, gradients of ``sum(y * dy)``; ``dtype`` casts every input."""
    x, mean, var, params, dy = jax.tree.map(
        lambda a: jnp.asarray(a, dtype), (x, mean, var, params, dy)
    )
    stats = functional.BatchStats(mean, var)
    mask = None if mask is None else jnp.asarray(mask)
    return _value_and_grads(params, x, stats, dy, mask, config=tuple(config.items()))


@functools.partial(jax.jit, static_argnames="config")
def _forward(params: Any, x: Any, stats: Any, mask: Any, config: Any) -> Any:
    return functional.unitized_batch_norm(x, stats, **params, mask=mask, **dict(config))


def forward(
    x: Any, mean: Any, var: Any, params: dict[str, Any], mask: Any = None, **config: Any
) -> tuple[jax.Array, functional.BatchStats]:
    """Output and new statistics; ``dtype`` is the layer's own argument here."""
    x, mean, var, params, mask = jax.tree.map(jnp.asarray, (x, mean, var, params, mask))
    stats = functional.BatchStats(mean, var)
    return _forward(params, x, stats, mask, config=tuple(config.items()))
