"""``flax.linen`` modules: fetch variables, call ``functional``, store."""

from unitnorm_jax.linen.unitized_batch_norm import UnitizedBatchNorm as UnitizedBatchNorm
from unitnorm_jax.linen.unitized_batch_norm import add_alpha as add_alpha
