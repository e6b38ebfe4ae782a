"""The variables that the normalizations of this package have in common, by their fields."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from unitnorm_jax.functional import BatchStats


def batch_stats(
    module: Any, shape: tuple[int, ...]
) -> tuple[BatchStats, Callable[[BatchStats], None]]:
    """Return a module's running statistics, and what stores new ones."""
    dtype = jnp.float32 if module.force_float32_reductions else module.param_dtype
    mean = module.variable("batch_stats", "mean", jnp.zeros, shape, dtype)
    var = module.variable("batch_stats", "var", jnp.ones, shape, dtype)

    def store(stats: BatchStats) -> None:
        mean.value, var.value = stats

    return BatchStats(mean.value, var.value), store


def affine(
    module: Any, shape: tuple[int, ...], prefix: str = ""
) -> tuple[Array | None, Array | None]:
    """Return a module's scale and bias (``prefix`` before names), None where it has none."""

    def param(name: str, used: bool) -> Array | None:
        if not used:
            return None
        name = prefix + name
        return module.param(name, getattr(module, f"{name}_init"), shape, module.param_dtype)

    return param("scale", module.use_scale), param("bias", module.use_bias)
