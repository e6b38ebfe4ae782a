"""The layer under the name that Flax derives names from."""

from unitnorm_jax.linen._unitized_batch_norm import UnitizedBatchNorm


class BatchNorm(UnitizedBatchNorm):
    """``UnitizedBatchNorm`` under the name of ``flax.linen.BatchNorm``.

    Flax names an unnamed layer after its class: in place of ``nn.BatchNorm`` this one is
    ``BatchNorm_0`` again, not ``UnitizedBatchNorm_0``. So checkpoints (by ``add_alpha``), masks of
    optimizers and everything else that knows a layer by its name go on working. Recommended for a
    swap by hand, such as the ``norm=...`` argument of a model.

    Attributes:
        All those of ``UnitizedBatchNorm``.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.linen import BatchNorm
        >>> class Net(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x):
        ...         return BatchNorm(use_running_average=True)(x)
        >>> variables = Net().init(jax.random.key(0), jnp.ones((2, 3)))
        >>> sorted(variables["params"]["BatchNorm_0"])
        ['alpha', 'bias', 'scale']
    """
