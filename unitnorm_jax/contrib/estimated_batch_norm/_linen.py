"""Batch normalization by running estimates as a ``flax.linen`` module."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.module import merge_param
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.contrib.estimated_batch_norm._functional import estimated_batch_norm
from unitnorm_jax.functional._numerics.axes import check_axis
from unitnorm_jax.linen._variables import affine, batch_stats

# A constant, or a function of the number of updates so far, as optax's schedules are.
Rate = float | int | Callable[[Any], Any]


class EstimatedBatchNorm(nn.Module):
    """Batch normalization whose statistics are estimates, in training as at inference.

    The layer is ``estimated_batch_norm``, where formula and source are: in training the
    estimates in ``batch_stats`` move by ``rate`` towards the batch's, then they normalize it; no
    gradient flows through them. So it works for batches of any size, one sample included.

    The rate is a constant, an array given at the call, or a function of the number of updates. That
    function may be the optimizer's own schedule, which makes the rate the learning rate; the layer
    then counts its updates in ``batch_stats``. (As a float: averaging ``batch_stats`` over devices,
    as is customary, leaves it what it is.) There is no default: the published code's is 0, which
    never moves the estimates.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.estimated_batch_norm import EstimatedBatchNorm
        >>> layer = EstimatedBatchNorm(rate=lambda update: 0.1 / (1 + update))
        >>> x = jax.random.normal(jax.random.key(0), (1, 4, 4, 6))
        >>> variables = layer.init(jax.random.key(1), x, use_running_average=False)
        >>> jax.tree.map(jnp.shape, variables["params"])
        {'bias': (6,), 'scale': (6,)}
        >>> jax.tree.map(jnp.shape, variables["batch_stats"])
        {'count': (), 'mean': (6,), 'var': (6,)}
        >>> y, updates = layer.apply(
        ...     variables, x, use_running_average=False, mutable=["batch_stats"])

    Attributes:
        use_running_average: if True, the estimates stay as they are.
        rate: weight of the batch in the estimates, in [0, 1], or a function of the number of
            updates so far that gives it; None: it is given at the call.
        axis: the feature axis of the input.
        epsilon: added to the variance.
        dtype: the dtype of the result (default: that of input, scale and bias together).
        param_dtype: the dtype of the parameters.
        use_bias: if True, bias (beta) is added.
        use_scale: if True, multiply by scale (gamma).
        bias_init: initializer of bias, by default zeros.
        scale_init: initializer of scale, by default ones.
        axis_name: mapped axis over whose devices the batch is split.
        axis_index_groups: groups of indices within that axis, to share statistics in groups.
        force_float32_reductions: the estimates are float32; False: of param_dtype. The arithmetic
            is in float32 at least.

    References:
        Siyuan Qiao, Huiyu Wang, Chenxi Liu, Wei Shen and Alan Yuille, `Rethinking Normalization and
        Elimination Singularity in Neural Networks <https://arxiv.org/abs/1911.09738>`_, 2019.
    """

    use_running_average: bool | None = None
    rate: Rate | None = None
    axis: int = -1
    epsilon: Any = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    axis_name: str | None = None
    axis_index_groups: Any = None
    force_float32_reductions: bool = True

    @nn.compact
    def __call__(
        self,
        x: Shaped[Array, "..."],
        use_running_average: bool | None = None,
        *,
        rate: Shaped[Array, ""] | float | int | None = None,
        mask: Shaped[Array, "..."] | None = None,
    ) -> Float[Array, "..."]:
        """Move the estimates and normalize the input with them.

        Args:
            x: the input, of rank >= 2 and a floating dtype.
            use_running_average: if True, the estimates stay as they are. Given here or as a field,
                not both.
            rate: weight of the batch in the estimates, if the field is None; may be traced. Not
                needed where the estimates stay.
            mask: True where a value takes part in the estimates; broadcastable to x.

        Returns:
            The normalized input, of the same shape.

        Raises:
            ValueError: a field is out of its range, shapes do not fit, or there is no rate.
        """
        still = merge_param("use_running_average", self.use_running_average, use_running_average)
        still = still or self.is_initializing()
        shape = (x.shape[check_axis(x.shape, self.axis)],)
        stats, store = batch_stats(self, shape)
        rate = current_rate(self, self.rate, rate, still)
        scale, bias = affine(self, shape)
        y, stats = estimated_batch_norm(
            x,
            stats,
            scale,
            bias,
            use_running_average=still,
            rate=0.0 if rate is None else rate,
            axis=self.axis,
            epsilon=self.epsilon,
            dtype=self.dtype,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            mask=mask,
        )
        if not still:
            store(stats)
        return y


def current_rate(module: nn.Module, field: Rate | None, given: Any, still: bool) -> Any:
    """Return the rate of this call, None where none is needed; count the update if it counts."""
    if field is not None and given is not None:
        raise ValueError(
            "`rate` is given as a field and at the call; give one of them: the field for a "
            "constant or a schedule, the argument for a value that the caller computes."
        )
    if not callable(field):
        rate = given if field is None else field
        if rate is None and not still:
            raise ValueError(
                f"`rate` of {type(module).__name__} is missing; give a number in [0, 1], a "
                "schedule such as the optimizer's, or `rate=...` at each call."
            )
        return rate
    count = module.variable("batch_stats", "count", jnp.zeros, (), jnp.float32)
    rate = None if still else field(count.value)
    if not still:
        count.value = count.value + 1
    return rate
