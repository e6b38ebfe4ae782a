"""Layers with standardized weights as ``flax.linen`` modules."""

from typing import Any, no_type_check

import flax.linen as nn

from unitnorm_jax.contrib.weight_standardization._functional import weight_standardization


@no_type_check  # Flax types fields by protocols that cannot be checked at run time
class WeightStandardizedConv(nn.Conv):
    """``flax.linen.Conv`` whose filters are standardized in every call.

    The kernel is that of ``weight_standardization``, where formula and source are; what
    ``params`` holds is the raw kernel, initialized as in ``flax.linen.Conv``. It has no gain: a
    normalization is expected to follow. In the paper's networks every convolution is one, the
    first and the 1x1 ones of shortcuts included, but not the classifier.

    All fields of ``flax.linen.Conv``, then two of its own.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.weight_standardization import WeightStandardizedConv
        >>> layer = WeightStandardizedConv(8, (3, 3))
        >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 4, 4, 2)))
        >>> jax.tree.map(jnp.shape, variables["params"])
        {'bias': (8,), 'kernel': (3, 3, 2, 8)}

    Attributes:
        epsilon: added to the variance or to the standard deviation of a filter's weights.
        epsilon_added_to: "variance" or "std".

    References:
        Siyuan Qiao, Huiyu Wang, Chenxi Liu, Wei Shen and Alan Yuille, `Micro-Batch Training with
        Batch-Channel Normalization and Weight Standardization <https://arxiv.org/abs/1903.10520>`_,
        2019.
    """

    epsilon: float = 1e-5
    epsilon_added_to: str = "variance"

    def param(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Return the parameter as the layer uses it: the kernel standardized."""
        value = super().param(name, *args, **kwargs)
        if name != "kernel":
            return value
        return weight_standardization(
            value, epsilon=self.epsilon, epsilon_added_to=self.epsilon_added_to
        )
