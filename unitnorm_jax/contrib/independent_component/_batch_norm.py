"""Plain batch normalization as a ``flax.linen`` module: what other modules here are made with."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.module import merge_param
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float, Shaped

from unitnorm_jax import functional
from unitnorm_jax.functional._numerics.axes import check_axes
from unitnorm_jax.linen._variables import affine, batch_stats


class BatchNorm(nn.Module):
    """``flax.linen.BatchNorm``, fields and variables, with ``batch_norm`` inside.

    Attributes:
        use_running_average: as ``flax.linen.BatchNorm``, like the others.
        axis: the feature axis (or axes) of the input.
        momentum: decay rate of the running statistics.
        epsilon: added to the variance.
        dtype: the dtype of the result (default: that of input, scale and bias together).
        param_dtype: the dtype of the parameters.
        use_bias: if True, bias (beta) is added.
        use_scale: if True, multiply by scale (gamma).
        bias_init: initializer of bias, by default zeros.
        scale_init: initializer of scale, by default ones.
        axis_name: mapped axis over whose devices statistics are taken.
        axis_index_groups: groups of indices within that axis, to share statistics in groups.
        use_fast_variance: one pass, and a second only where it would lose digits; False: always
            two.
        force_float32_reductions: running statistics are float32; False: of param_dtype. The
            arithmetic is in float32 at least.
    """

    use_running_average: bool | None = None
    axis: int | Sequence[int] = -1
    momentum: Any = 0.99
    epsilon: Any = 1e-5
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

    @nn.compact
    def __call__(
        self,
        x: Shaped[Array, "..."],
        use_running_average: bool | None = None,
        *,
        mask: Shaped[Array, "..."] | None = None,
    ) -> Float[Array, "..."]:
        """Normalize the input, and update the running statistics.

        Args:
            x: the input, of rank >= 2.
            use_running_average: if True, the statistics stored in batch_stats are used instead of
                those of the input. Given here or as a field, not both.
            mask: True where a value takes part in the statistics; broadcastable to x.

        Returns:
            The normalized input, of the same shape.

        Raises:
            ValueError: a field is out of its range, or shapes do not fit.
        """
        running = merge_param("use_running_average", self.use_running_average, use_running_average)
        features = check_axes(x.shape, self.axis)
        shape = tuple(x.shape[i] for i in features)
        stats, store = batch_stats(self, shape)
        y, stats = functional.batch_norm(
            x,
            stats,
            *affine(self, shape),
            use_running_average=running,
            axis=features,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            axis_name=None if self.is_initializing() else self.axis_name,
            axis_index_groups=self.axis_index_groups,
            mask=mask,
            use_fast_variance=self.use_fast_variance,
        )
        if not running and not self.is_initializing():
            store(stats)
        return y
