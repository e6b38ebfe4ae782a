"""``flax.linen`` modules: fetch variables, call ``functional``, store."""

from unitnorm_jax.linen.batch_channel_norm import BatchChannelNorm as BatchChannelNorm
from unitnorm_jax.linen.estimated_batch_norm import EstimatedBatchNorm as EstimatedBatchNorm
from unitnorm_jax.linen.unitized_batch_norm import UnitizedBatchNorm as UnitizedBatchNorm
from unitnorm_jax.linen.unitized_batch_norm import add_alpha as add_alpha
