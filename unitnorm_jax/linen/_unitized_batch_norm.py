"""Unitized batch normalization as a ``flax.linen`` module."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.linen.module import merge_param
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float, Shaped

from unitnorm_jax import functional
from unitnorm_jax.functional._numerics.axes import check_layout
from unitnorm_jax.linen._variables import affine, batch_stats


class UnitizedBatchNorm(nn.Module):
    """Unitized batch normalization: a drop-in for ``flax.linen.BatchNorm``.

    The layer is ``functional.unitized_batch_norm``, where formula, units and masks are explained::

        xhat = (x - mean_c) / sqrt(var_c + epsilon)
        y    = scale_c * xhat * (alpha_c / sqrt(s_n + epsilon) + 1 - alpha_c) + bias_c

    with s_n the squared norm of sample n of xhat. ``alpha`` starts at 0, where the layer is batch
    normalization; ``add_alpha`` loads a checkpoint of that. After a convolution it costs about
    what ``flax.linen.BatchNorm`` costs, or less: it needs no more of its input than moments per
    (sample, channel), taken in one pass, and one affine map. Why it is written as it is, and what
    was tried instead, is told in ``functional/unitized_batch_norm.py``.

    The fields are those of ``flax.linen.BatchNorm``, in its order and with its defaults, then four
    of its own. Statistics are those of the global batch under ``jit`` with shardings; under
    ``pmap`` and ``shard_map`` set ``axis_name``. ``init`` updates no statistics and needs no
    mapped axis.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.linen import UnitizedBatchNorm
        >>> layer = UnitizedBatchNorm(momentum=0.9)
        >>> x = jax.random.normal(jax.random.key(0), (5, 6))
        >>> variables = layer.init(jax.random.key(1), x, use_running_average=False)
        >>> jax.tree.map(jnp.shape, variables["params"])
        {'alpha': (6,), 'bias': (6,), 'scale': (6,)}
        >>> jax.tree.map(jnp.shape, variables["batch_stats"])
        {'mean': (6,), 'var': (6,)}
        >>> y, updates = layer.apply(
        ...     variables, x, use_running_average=False, mutable=["batch_stats"])

    Attributes:
        use_running_average: if True, the statistics stored in batch_stats are used instead of those
            of the input.
        axis: the feature axis (or axes) of the input.
        momentum: decay rate of the running statistics.
        epsilon: added to the variance and to the squared norm.
        dtype: the dtype of the result (default: that of input, scale and bias together).
        param_dtype: the dtype of the parameters.
        use_bias: if True, bias (beta) is added.
        use_scale: if True, multiply by scale (gamma).
        bias_init: initializer of bias, by default zeros.
        scale_init: initializer of scale, by default ones.
        axis_name: mapped axis over whose devices statistics are taken.
        axis_index_groups: groups of indices within that axis, to share statistics in groups.
        use_fast_variance: one pass over the input, and a second only where it would lose digits;
            False: always two.
        force_float32_reductions: running statistics are float32; False: of param_dtype. The
            arithmetic is in float32 at least, as the means of ``jnp.mean`` are.
        unit: "reference" (the authors'), "sample", "rms", "position", or a float kappa.
        alpha_init: initializer of alpha, by default zeros.
        bessel_correction: apply the authors' correction of the variance.
        sample_axis: the sample axis of the input, or several; None: each call has one sample, under
            ``vmap(axis_name=...)``.

    References:
        You Huang and Yuanlong Yu, `An Internal Covariate Shift Bounding Algorithm for Deep Neural
        Networks by Unitizing Layers' Outputs`, CVPR 2020.
    """

    use_running_average: bool | None = None
    axis: int | Sequence[int] = -1
    momentum: float | int | Float[Array, ""] = 0.99
    epsilon: float | int | Float[Array, ""] = 1e-5
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
    sample_axis: int | Sequence[int] | None = 0

    @nn.compact
    def __call__(
        self,
        x: Shaped[Array | np.ndarray, "..."],
        use_running_average: bool | None = None,
        *,
        mask: Shaped[Array | np.ndarray, "..."] | None = None,
    ) -> Float[Array, "..."]:
        """Normalize the input, and update the running statistics.

        Args:
            x: the input, of rank >= 2 (>= 1 if ``sample_axis`` is None); integers and booleans are
                taken as float32.
            use_running_average: if True, the statistics stored in batch_stats are used instead of
                those of the input. Given here or as a field, not both.
            mask: True where a value takes part in statistics and norm; broadcastable to x.

        Returns:
            The normalized input, of the same shape.

        Raises:
            ValueError: a field is out of its range, or shapes do not fit.
        """
        use_running_average = merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        _, features = check_layout(x.shape, self.axis, self.sample_axis)
        shape = tuple(x.shape[i] for i in features)
        stats, store = batch_stats(self, shape)
        scale, bias = affine(self, shape)
        alpha = self.param("alpha", self.alpha_init, shape, self.param_dtype)

        # One example of one position has no statistics before a mapped axis adds the others.
        alone = self.is_initializing() and len(features) == len(x.shape)
        y, stats = functional.unitized_batch_norm(
            x,
            stats,
            alpha,
            scale,
            bias,
            use_running_average=use_running_average or (alone and self.axis_name is not None),
            axis=features,
            sample_axis=self.sample_axis,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            unit=self.unit,
            bessel_correction=self.bessel_correction,
            axis_name=None if self.is_initializing() else self.axis_name,
            axis_index_groups=self.axis_index_groups,
            mask=mask,
            use_fast_variance=self.use_fast_variance,
        )
        if not use_running_average and not self.is_initializing():
            store(stats)
        return y
