"""Unitized batch normalization as a ``flax.linen`` module."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.module import merge_param
from flax.typing import Dtype, Initializer

from unitnorm_jax import functional


class UnitizedBatchNorm(nn.Module):
    use_running_average: bool | None = None
    axis: int = -1
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True
    unit: str | float = "reference"
    alpha_init: Initializer = nn.initializers.zeros
    bessel_correction: bool = False
    sample_axis: int = 0

    @nn.compact
    def __call__(
        self, x: jax.Array, use_running_average: bool | None = None, *, mask: jax.Array | None = None
    ) -> jax.Array:
        use_running_average = merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        shape = (x.shape[self.axis],)
        mean = self.variable("batch_stats", "mean", lambda: jnp.zeros(shape, jnp.float32))
        var = self.variable("batch_stats", "var", lambda: jnp.ones(shape, jnp.float32))
        scale = self.param("scale", self.scale_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape, self.param_dtype)
        alpha = self.param("alpha", self.alpha_init, shape, self.param_dtype)
        y, stats = functional.unitized_batch_norm(
            x,
            functional.BatchStats(mean.value, var.value),
            alpha,
            scale,
            bias,
            use_running_average=use_running_average,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            unit=self.unit,
        )
        if not use_running_average and not self.is_initializing():
            mean.value, var.value = stats
        return y
