"""The independent-component layer as a ``flax.linen`` module: batch normalization, dropout."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.module import merge_param
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.contrib.independent_component._batch_norm import BatchNorm


class IndependentComponent(nn.Module):
    r"""Independent-component (IC) layer: batch normalization, then dropout; before a weight layer.

    With p = 1 - rate the probability that dropout keeps a value::

        IC(x) = m / p * BN(x),   m ~ Bernoulli(p) for every value on its own

    BN makes every unit's mean 0 and variance 1; independent masks then take dependence from any
    two units: their correlation becomes p times, their mutual information p^2 times what it was
    (the one if their means are 0, hence BN first; the other if a unit itself is never exactly 0).
    At inference it is BN with running statistics.

    The paper puts it between the activation and the next Dense or Conv (ReLU, IC, Conv), not
    before the activation. Behind the weight layer the next IC sees a variance that dropout has
    raised, by 1 / p if the units are uncorrelated, but at inference has the running average of
    that: with the usual p = 0.95 a factor of 1.05 at most.

    ``rate`` is the only field of its own beside ``norm``, ``deterministic``, ``broadcast_dims``
    and ``rng_collection``; the others are those of ``flax.linen.BatchNorm``, in its order and
    with its defaults. So are its variables: a checkpoint with ``nn.BatchNorm`` in its place loads.
    In training ``apply`` needs ``rngs={"dropout": key}``; ``init`` does not.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.independent_component import IndependentComponent
        >>> layer = IndependentComponent(rate=0.25)
        >>> x = 3 + jax.random.normal(jax.random.key(0), (1000, 2))
        >>> variables = layer.init(jax.random.key(1), x, use_running_average=False)
        >>> jax.tree.map(jnp.shape, variables["params"])
        {'bias': (2,), 'scale': (2,)}
        >>> y, updates = layer.apply(
        ...     variables, x, use_running_average=False, mutable=["batch_stats"],
        ...     rngs={"dropout": jax.random.key(2)})
        >>> abs((y == 0).mean() - 0.25).item() < 0.05
        True

    Attributes:
        use_running_average: if True, the statistics stored in batch_stats are used instead of those
            of the input, and there is no dropout.
        axis: the feature axis (or axes) of the input.
        momentum: decay rate of the running statistics.
        epsilon: added to the variance.
        dtype: the dtype of the result (default: that of input, scale and bias together).
        param_dtype: the dtype of the parameters.
        use_bias: if True, bias (beta) is added, before dropout.
        use_scale: if True, multiply by scale (gamma).
        bias_init: initializer of bias, by default zeros.
        scale_init: initializer of scale, by default ones.
        axis_name: mapped axis over whose devices statistics are taken. Dropout needs a key of its
            own on every device: fold ``jax.lax.axis_index`` into it.
        axis_index_groups: groups of indices within that axis, to share statistics in groups.
        use_fast_variance: as the norm's.
        force_float32_reductions: as the norm's.
        rate: probability that dropout sets a value to 0, in [0, 1); the published ports use 0.05.
        deterministic: if given, whether dropout is off; by default it is on in training alone.
        broadcast_dims: axes along which values share a mask: (1, 2) drops whole channels of images.
        rng_collection: name of dropout's key in ``rngs``.
        norm: makes the normalization, by default ``batch_norm``: ``nn.BatchNorm``, but
            exact where the mean is large. Or ``UnitizedBatchNorm``, or a partial of one.

    References:
        Guangyong Chen, Pengfei Chen, Yujun Shi, Chang-Yu Hsieh, Benben Liao and Shengyu Zhang,
        `Rethinking the Usage of Batch Normalization and Dropout in the Training of Deep Neural
        Networks <https://arxiv.org/abs/1905.05928>`_, 2019. The composition, its place and the two
        laws are the paper's; the rate 0.05 is that of three independent ports; the conditions of
        the laws, and the variance behind a weight layer, are derived here.
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
    rate: float = 0.05
    deterministic: bool | None = None
    broadcast_dims: Sequence[int] = ()
    rng_collection: str = "dropout"
    norm: Callable[..., nn.Module] = BatchNorm

    def setup(self) -> None:
        """Make the normalization, with its variables in the place of this module's."""
        if not 0 <= self.rate < 1:
            raise ValueError(
                f"`rate` (={self.rate}) must be in [0, 1): it is the probability that dropout sets "
                "a value to 0; the usual is 0.05."
            )
        self.normalization = self.norm(
            axis=self.axis,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            use_bias=self.use_bias,
            use_scale=self.use_scale,
            bias_init=self.bias_init,
            scale_init=self.scale_init,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            use_fast_variance=self.use_fast_variance,
            force_float32_reductions=self.force_float32_reductions,
        )
        nn.share_scope(self, self.normalization)
        self.dropout = nn.Dropout(
            self.rate, broadcast_dims=self.broadcast_dims, rng_collection=self.rng_collection
        )

    def __call__(
        self,
        x: Shaped[Array, "..."],
        use_running_average: bool | None = None,
        *,
        deterministic: bool | None = None,
        mask: Shaped[Array, "..."] | None = None,
    ) -> Float[Array, "..."]:
        """Normalize the input, and in training drop values of it.

        Args:
            x: the input.
            use_running_average: if True, the statistics stored in batch_stats are used instead of
                those of the input, and there is no dropout. Given here or as a field, not both.
            deterministic: if given, whether dropout is off. Here or as a field, not both.
            mask: True where a value takes part in the statistics.

        Returns:
            The normalized input, of the same shape.

        Raises:
            ValueError: a field is out of its range.
        """
        use_running_average = merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        if deterministic is not None or self.deterministic is not None:
            deterministic = merge_param("deterministic", self.deterministic, deterministic)
        else:
            deterministic = use_running_average
        y = self.normalization(x, use_running_average=use_running_average, mask=mask)
        return self.dropout(y, deterministic=deterministic)
