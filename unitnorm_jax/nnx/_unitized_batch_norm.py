"""Unitized batch normalization as a ``flax.nnx`` module."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype as default_promote_dtype
from flax.typing import Dtype, Initializer
from jax import lax
from jaxtyping import Array, Float, Shaped

from unitnorm_jax import functional

_NO_METADATA: Mapping[str, Any] = MappingProxyType({})
_zeros = nnx.initializers.zeros_init()
_ones = nnx.initializers.ones_init()
# Folded into the key that the stream would give next: "alph", in a branch that it never gives.
_ALPHA = 0x616C7068


class UnitizedBatchNorm(nnx.BatchNorm):
    """Unitized batch normalization: a drop-in for ``flax.nnx.BatchNorm``, and a subclass of it.

    The layer is ``functional.unitized_batch_norm``, where formula, units and masks are explained::

        xhat = (x - mean_c) / sqrt(var_c + epsilon)
        y    = scale_c * xhat * (alpha_c / sqrt(s_n + epsilon) + 1 - alpha_c) + bias_c

    with s_n the squared norm of sample n of xhat. ``alpha`` starts at 0, where the layer is batch
    normalization. ``unitnorm_jax.nnx.unitize`` converts a model that has ``nnx.BatchNorm`` already.

    The arguments are those of ``flax.nnx.BatchNorm``, in its order and with its defaults, then five
    more. Variables are at the same paths, and ``alpha`` beside them. ``rngs`` gives the keys that
    ``nnx.BatchNorm`` takes and no more, so that later layers start as they do with it: alpha's key,
    which only a random ``alpha_init`` needs, is folded from the stream's next. (So two layers in a
    row that have neither scale nor bias start with the same alpha.)

    Three departures from ``nnx.BatchNorm``. The input is not converted to ``dtype`` before its
    statistics are taken: only the result is. One pass that would lose digits is taken again. And an
    ``axis_name`` that nothing maps is a ValueError.

    Statistics are those of the global batch under ``jit`` with shardings; under ``pmap``,
    ``shard_map`` and ``vmap`` over a batch set ``axis_name``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from unitnorm_jax.nnx import UnitizedBatchNorm
        >>> layer = UnitizedBatchNorm(6, momentum=0.9, unit="rms", rngs=nnx.Rngs(0))
        >>> {name: v.shape for (name,), v in nnx.to_flat_state(nnx.state(layer))}
        {'alpha': (6,), 'bias': (6,), 'mean': (6,), 'scale': (6,), 'var': (6,)}
        >>> x = jax.random.normal(jax.random.key(0), (5, 6))
        >>> y = layer(x)  # moves mean and var
        >>> layer.eval()
        >>> y = layer(x)  # uses them

    Args:
        num_features: the number of input features.
        use_running_average: if True, the stored statistics are used instead of those of the input;
            ``train()``, ``eval()`` and ``nnx.view`` change it. None: each call must say.
        axis: the feature axis of the input.
        momentum: decay rate of the running statistics.
        epsilon: added to the variance and to the squared norm.
        dtype: the dtype of the result (default: that of input, parameters and statistics together).
        param_dtype: the dtype of the parameters; statistics are float32.
        use_bias: if True, bias (beta) is added.
        use_scale: if True, multiply by scale (gamma).
        bias_init: initializer of bias, by default zeros.
        scale_init: initializer of scale, by default ones.
        axis_name: mapped axis over whose devices statistics are taken.
        axis_index_groups: groups of indices within that axis, to share statistics in groups.
        use_fast_variance: one pass over the input, and a second only where it would lose digits;
            False: always two.
        promote_dtype: maps ``(x, mean, var, scale, bias)`` and ``dtype`` to these five in the
            dtypes to compute with, float32 at least; the running statistics move as stored. (The
            default chooses the dtype of the result, and converts nothing before.)
        rngs: random keys, of the stream "params".
        bias_metadata: metadata of bias, such as ``{"out_sharding": ("model",)}``.
        scale_metadata: metadata of scale.
        unit: "reference" (the authors'), "sample", "rms", "position", or a float kappa.
        alpha_init: initializer of alpha, by default zeros.
        sample_axis: the sample axis of the input, or several; None: each call has one sample, under
            ``vmap(axis_name=...)``.
        bessel_correction: apply the authors' correction of the variance.
        alpha_metadata: metadata of alpha.

    Raises:
        ValueError: ``unit`` is unknown, or ``alpha_init`` needs a key and ``rngs`` is None.

    References:
        You Huang and Yuanlong Yu, `An Internal Covariate Shift Bounding Algorithm for Deep Neural
        Networks by Unitizing Layers' Outputs`, CVPR 2020.
    """

    alpha: nnx.Param[jax.Array]
    unit: str | float
    sample_axis: int | tuple[int, ...] | None
    bessel_correction: bool

    def __init__(
        self,
        num_features: int,
        *,
        use_running_average: bool | None = False,
        axis: int = -1,
        momentum: Any = 0.99,
        epsilon: Any = 1e-5,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = _zeros,
        scale_init: Initializer = _ones,
        axis_name: str | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: Callable[..., Any] = default_promote_dtype,
        rngs: Any,
        bias_metadata: Mapping[str, Any] = _NO_METADATA,
        scale_metadata: Mapping[str, Any] = _NO_METADATA,
        unit: str | float = "reference",
        alpha_init: Initializer = _zeros,
        sample_axis: int | Sequence[int] | None = 0,
        bessel_correction: bool = False,
        alpha_metadata: Mapping[str, Any] = _NO_METADATA,
    ) -> None:
        super().__init__(
            num_features,
            use_running_average=use_running_average,
            axis=axis,
            momentum=momentum,
            epsilon=epsilon,
            dtype=dtype,
            param_dtype=param_dtype,
            use_bias=use_bias,
            use_scale=use_scale,
            bias_init=bias_init,
            scale_init=scale_init,
            axis_name=axis_name,
            axis_index_groups=axis_index_groups,
            use_fast_variance=use_fast_variance,
            promote_dtype=promote_dtype,
            rngs=rngs,
            bias_metadata=bias_metadata,
            scale_metadata=scale_metadata,
        )
        alpha = initial_alpha(alpha_init, rngs, (num_features,), param_dtype)
        self.alpha = nnx.Param(alpha, **alpha_metadata)
        set_own(self, unit=unit, sample_axis=sample_axis, bessel_correction=bessel_correction)

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
            use_running_average: if True, the stored statistics are used instead of those of the
                input. Takes precedence over the constructor's.
            mask: True where a value takes part in statistics and norm; broadcastable to x.

        Returns:
            The normalized input, of the same shape.

        Raises:
            ValueError: an argument is out of its range, or shapes do not fit.
        """
        if use_running_average is None:
            use_running_average = self.use_running_average
        if use_running_average is None:
            raise ValueError(
                "`use_running_average` (=None) must be True or False: give it to the call or the "
                "constructor, or set it by model.train(), model.eval() or nnx.view."
            )
        stats = functional.BatchStats(self.mean[...], self.var[...])
        scale, bias = (None if p is None else p[...] for p in (self.scale, self.bias))
        dtype = self.dtype
        if self.promote_dtype is not default_promote_dtype:
            args = x, *stats, scale, bias
            x, mean, var, scale, bias = self.promote_dtype(args, dtype=dtype)
            if use_running_average:
                stats = functional.BatchStats(mean, var)
        elif dtype is None:
            # Theirs would convert the input. It is kept for the backward pass: as it came is less.
            given = [value for value in (*stats, scale, bias) if value is not None]
            dtype = jnp.result_type(x, *given)
        y, stats = functional.unitized_batch_norm(
            x,
            stats,
            self.alpha[...],
            scale,
            bias,
            use_running_average=use_running_average,
            axis=self.axis,
            sample_axis=self.sample_axis,
            momentum=self.momentum,
            epsilon=self.epsilon,
            dtype=dtype,
            unit=self.unit,
            bessel_correction=self.bessel_correction,
            axis_name=self.axis_name,
            axis_index_groups=self.axis_index_groups,
            mask=mask,
            use_fast_variance=self.use_fast_variance,
        )
        if not use_running_average:
            self.mean[...], self.var[...] = lax.stop_gradient(stats)
        return y


def set_own(
    layer: Any, *, unit: Any, sample_axis: int | Sequence[int] | None, bessel_correction: bool
) -> None:
    """Set what a unitized layer has beside ``nnx.BatchNorm``, but alpha."""
    layer.unit = functional.check_unit(unit)
    # Hashable: it is part of the graph's definition.
    layer.sample_axis = tuple(sample_axis) if isinstance(sample_axis, Sequence) else sample_axis
    layer.bessel_correction = bessel_correction


def initial_alpha(
    alpha_init: Initializer, rngs: Any, shape: tuple[int, ...], dtype: Any
) -> jax.Array:
    """Return the first alpha, by a key that no other parameter has; the stream stays as it is."""
    if alpha_init is _zeros:
        return jnp.zeros(shape, dtype)
    key: Any = None
    if rngs is not None:
        stream = rngs.params
        key = jax.random.fold_in(stream.key[...], stream.count[...])
        key = jax.random.fold_in(key, _ALPHA)
    try:
        return alpha_init(key, shape, dtype)
    except TypeError as error:
        if key is not None:
            raise
        raise ValueError(
            f"`rngs` (=None) must give a key to an `alpha_init` (={alpha_init}) that draws random "
            f"numbers: give rngs=nnx.Rngs(0), or a constant initializer. JAX says: {error}"
        ) from None
