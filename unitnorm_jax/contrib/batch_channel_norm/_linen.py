"""Batch-channel normalization as a ``flax.linen`` module."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.module import merge_param
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.contrib.batch_channel_norm._functional import batch_channel_norm, check_groups
from unitnorm_jax.contrib.estimated_batch_norm._linen import Rate, current_rate
from unitnorm_jax.functional._numerics.axes import check_axis
from unitnorm_jax.linen._variables import affine, batch_stats


class BatchChannelNorm(nn.Module):
    """Batch normalization, then group normalization with one scale and bias per group.

    The layer is ``batch_channel_norm``, where formula and source are. With a ``rate``
    (field or argument) its first half is that of ``EstimatedBatchNorm``, for micro-batches.

    Statistics are those of the global batch under ``jit`` with shardings; under ``pmap`` and
    ``shard_map`` set ``axis_name``. ``init`` needs no mapped axis. The paper's networks are
    post-activation ResNets whose last normalization of each branch starts with
    ``group_scale_init=nn.initializers.zeros``, and whose convolutions are
    ``WeightStandardizedConv``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.batch_channel_norm import BatchChannelNorm
        >>> layer = BatchChannelNorm(num_groups=2)
        >>> x = jax.random.normal(jax.random.key(0), (5, 4, 4, 6))
        >>> variables = layer.init(jax.random.key(1), x, use_running_average=False)
        >>> jax.tree.map(jnp.shape, variables["params"])
        {'bias': (6,), 'group_bias': (2,), 'group_scale': (2,), 'scale': (6,)}
        >>> jax.tree.map(jnp.shape, variables["batch_stats"])
        {'mean': (6,), 'var': (6,)}
        >>> y, updates = layer.apply(
        ...     variables, x, use_running_average=False, mutable=["batch_stats"])

    Attributes:
        use_running_average: if True, the statistics stored in batch_stats are used instead of those
            of the input, in the first half.
        num_groups: number of groups; the channels must be divisible by it.
        rate: None, or what ``EstimatedBatchNorm`` takes.
        axis: the feature axis of the input.
        momentum: decay rate of the running statistics; of no use with a rate.
        epsilon: added to the variances of both halves.
        dtype: the dtype of the result (default: that of input and parameters together).
        param_dtype: the dtype of the parameters.
        use_bias: if True, add ``bias`` (per channel) and ``group_bias`` (per group).
        use_scale: if True, multiply by ``scale`` and ``group_scale``.
        bias_init: initializer of bias, by default zeros.
        scale_init: initializer of scale, by default ones.
        group_bias_init: initializer of group_bias, by default zeros.
        group_scale_init: initializer of group_scale, by default ones.
        axis_name: mapped axis over whose devices the batch's statistics are taken.
        axis_index_groups: groups of indices within that axis, to share statistics in groups.
        use_fast_variance: one pass over the input for the batch's statistics, and a second only
            where it would lose digits; False: always two.
        force_float32_reductions: running statistics are float32; False: of param_dtype. The
            arithmetic is in float32 at least.
        bessel_correction: feed the running variance with the unbiased one, as PyTorch does.
        sample_axis: the sample axis of the input.

    References:
        Siyuan Qiao, Huiyu Wang, Chenxi Liu, Wei Shen and Alan Yuille, `Rethinking Normalization and
        Elimination Singularity in Neural Networks <https://arxiv.org/abs/1911.09738>`_, 2019.
    """

    use_running_average: bool | None = None
    num_groups: int = 32
    rate: Rate | None = None
    axis: int = -1
    momentum: Any = 0.99
    epsilon: Any = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    group_bias_init: Initializer = nn.initializers.zeros
    group_scale_init: Initializer = nn.initializers.ones
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = True
    force_float32_reductions: bool = True
    bessel_correction: bool = False
    sample_axis: int = 0

    @nn.compact
    def __call__(
        self,
        x: Shaped[Array, "..."],
        use_running_average: bool | None = None,
        *,
        rate: Shaped[Array, ""] | float | int | None = None,
        mask: Shaped[Array, "..."] | None = None,
    ) -> Float[Array, "..."]:
        """Normalize the input, and update the running statistics.

        Args:
            x: the input, of rank >= 2 and a floating dtype.
            use_running_average: if True, the statistics stored in batch_stats are used instead of
                those of the input, in the first half. Given here or as a field, not both.
            rate: None, or weight of the batch in the estimates; may be traced. Given here or as a
                field, not both.
            mask: True where a value takes part in the statistics; broadcastable to x.

        Returns:
            The normalized input, of the same shape.

        Raises:
            ValueError: a field is out of its range, or shapes do not fit.
        """
        running = merge_param("use_running_average", self.use_running_average, use_running_average)
        running = running or self.is_initializing()
        axis = check_axis(x.shape, self.axis, self.sample_axis)
        check_groups(x.shape, axis, self.sample_axis, self.num_groups)
        shape = (x.shape[axis],)
        stats, store = batch_stats(self, shape)
        if self.rate is not None or rate is not None:
            rate = current_rate(self, self.rate, rate, running)
        params = (*affine(self, shape), *affine(self, (self.num_groups,), "group_"))
        y, stats = batch_channel_norm(
            x,
            stats,
            *params,
            use_running_average=running,
            num_groups=self.num_groups,
            rate=rate,
            axis=self.axis,
            sample_axis=self.sample_axis,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            bessel_correction=self.bessel_correction,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            mask=mask,
            use_fast_variance=self.use_fast_variance,
        )
        if not running:
            store(stats)
        return y
