"""``flax.linen`` modules: fetch variables, call ``functional``, store."""

from unitnorm_jax.linen._add_alpha import add_alpha as add_alpha
from unitnorm_jax.linen._unitized_batch_norm import UnitizedBatchNorm as UnitizedBatchNorm
