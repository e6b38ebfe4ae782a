"""Batch Kalman Normalization as a ``flax.linen`` module."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.module import merge_param
from flax.typing import Dtype, Initializer
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.contrib.batch_kalman_norm._functional import batch_kalman_norm
from unitnorm_jax.contrib.batch_kalman_norm._moments import Moments, normalized_moments
from unitnorm_jax.functional._numerics.axes import check_axis
from unitnorm_jax.linen._variables import affine, batch_stats

MOMENTS_OF = ("output", "input")


class BatchKalmanNorm(nn.Module):
    """Batch Kalman Normalization: for batches whose statistics are of a few samples.

    The layer is ``batch_kalman_norm``: for each slice of the batch, the moments that
    were observed are combined with those predicted from the layer before::

        mean = (1 - gain) * mean_pred + gain * mean_obs
        var  = (1 - gain) * var_pred + gain * var_obs + gain * (1 - gain) * (mean_obs - mean_pred)^2
        y    = scale * (x - mean) / sqrt(var + epsilon) + bias

    It returns y and moments to predict from: push them through the layers up to the next
    normalization, by ``relu_moments`` and ``layer_moments`` or, as the authors' code
    does, by ``sampled_moments``. ``first=True`` marks the first of a network, which has
    no prediction.

    Which moments: those of y (``moments_of="output"``), mean ``bias`` and variance
    ``scale^2 var / (var + epsilon)``, are derived here; the next layer's real input has them. The
    authors' code hands on the posterior of x (``moments_of="input"``), which is the state before
    normalization: its predictions are in another scale than what they predict, which is why their
    guard is there. Reproduces their layer with that, ``bessel_correction=True`` for the first
    layer, and ``sampled_moments``.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.batch_kalman_norm import relu_moments
        >>> from unitnorm_jax.contrib.batch_kalman_norm import BatchKalmanNorm, layer_moments
        >>> class Net(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x, train):
        ...         eval = not train
        ...         x, moments = BatchKalmanNorm(eval, slice_size=2, first=True)(x)
        ...         dense = nn.Dense(3)
        ...         x = dense(nn.relu(x))
        ...         prediction = layer_moments(dense, relu_moments(moments))
        ...         x, _ = BatchKalmanNorm(eval, slice_size=2)(x, prediction=prediction)
        ...         return x
        >>> x = jax.random.normal(jax.random.key(0), (8, 5))
        >>> variables = Net().init(jax.random.key(1), x, train=True)
        >>> y, updates = Net().apply(variables, x, train=True, mutable=["batch_stats"])
        >>> jax.tree.map(jnp.shape, variables["params"]["BatchKalmanNorm_1"])
        {'bias': (3,), 'scale': (3,)}
        >>> jax.tree.map(jnp.shape, updates["batch_stats"]["BatchKalmanNorm_1"])
        {'mean': (3,), 'var': (3,)}

    Attributes:
        use_running_average: if True, the statistics stored in batch_stats are used instead of those
            of the input, and predictions are not looked at.
        axis: the feature axis of the input; axis 0 is the batch.
        momentum: decay rate of the running statistics (0.9 in the authors' code). They follow the
            posterior of the first slice.
        epsilon: added to the variance.
        dtype: the dtype of the result (default: that of input, scale and bias together).
        param_dtype: the dtype of the parameters.
        use_bias: if True, bias (beta) is added.
        use_scale: if True, multiply by scale (gamma).
        bias_init: initializer of bias, by default zeros.
        scale_init: initializer of scale, by default ones.
        axis_name: mapped axis over whose devices the batch is spread: one guard, and the running
            statistics of the first slice of the first device.
        axis_index_groups: groups of indices within that axis, each with a batch of its own.
        force_float32_reductions: running statistics are float32; False: of param_dtype. The
            arithmetic is in float32 at least.
        slice_size: consecutive samples of a slice; None: the whole batch is one.
        gain: weight of the observed moments, in [0, 1]; the authors use 0.1 for slices of 2 images
            and 0.95 for one of 128. At 1 the layer is batch normalization of each slice.
        guard: predictions are ignored where the mean of var_pred / var_obs is not below this.
        moments_of: "output" or "input", see above.
        first: the layer has no prediction.
        bessel_correction: the first layer hands on the variance times M / (M - 1).

    References:
        Guangrun Wang, Jiefeng Peng, Ping Luo, Xinjiang Wang and Liang Lin, `Kalman Normalization:
        Normalizing Internal Representations Across Network Layers
        <https://arxiv.org/abs/1802.03133>`_, NeurIPS 2018, and its code,
        wanggrun/Kalman-Normalization.
    """

    use_running_average: bool | None = None
    axis: int = -1
    momentum: Any = 0.9
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
    slice_size: int | None = None
    gain: float = 0.1
    guard: float = 100.0
    moments_of: str = "output"
    first: bool = False
    bessel_correction: bool = False

    @nn.compact
    def __call__(
        self,
        x: Shaped[Array, "..."],
        use_running_average: bool | None = None,
        *,
        prediction: Moments | None = None,
    ) -> tuple[Float[Array, "..."], Moments]:
        """Normalize the input, and update the running statistics.

        Args:
            x: the input, of rank >= 2 and a floating dtype.
            use_running_average: if True, the statistics stored in batch_stats are used instead of
                those of the input. Given here or as a field, not both.
            prediction: predicted moments of x, (slices, channels), or (1, channels) for all slices
                alike. Not needed at inference.

        Returns:
            The normalized input, of the same shape, and moments to predict from, (slices,
            channels); at inference (1, channels), of the running statistics.

        Raises:
            ValueError: a field is out of its range, the prediction is missing, or shapes do not
                fit.
        """
        use_running_average = merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        self._check(use_running_average, prediction)
        shape = (x.shape[check_axis(x.shape, self.axis, 0)],)
        stats, store = batch_stats(self, shape)
        scale, bias = affine(self, shape)
        y, posterior, stats = batch_kalman_norm(
            x,
            stats,
            prediction,
            scale,
            bias,
            use_running_average=use_running_average,
            axis=self.axis,
            slice_size=self.slice_size,
            gain=self.gain,
            guard=self.guard,
            momentum=self.momentum,
            epsilon=self.epsilon,
            bessel_correction=self.bessel_correction,
            dtype=self.dtype,
            axis_name=None if self.is_initializing() else self.axis_name,
            axis_index_groups=self.axis_index_groups,
        )
        if not use_running_average and not self.is_initializing():
            store(stats)
        if self.moments_of == "output":
            posterior = normalized_moments(posterior, scale, bias, epsilon=self.epsilon)
        return y, posterior

    def _check(self, use_running_average: bool, prediction: Moments | None) -> None:
        if self.moments_of not in MOMENTS_OF:
            raise ValueError(
                f"`moments_of` (={self.moments_of!r}) must be one of "
                f"{', '.join(map(repr, MOMENTS_OF))}."
            )
        if self.first and prediction is not None:
            raise ValueError(
                "A `prediction` was given to a layer with `first=True`, which has none; leave out "
                "one of the two."
            )
        # At gain 1 it would have no weight.
        needed = not (self.first or use_running_average) and self.gain != 1
        if needed and prediction is None:
            raise ValueError(
                "`prediction` is missing: in training this layer needs predicted moments of its "
                "input. Carry those that the normalization before returned through the layers "
                "between (relu_moments, layer_moments), or set `first=True` if there is none "
                "before it."
            )
