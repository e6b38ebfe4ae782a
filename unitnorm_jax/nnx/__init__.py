"""``flax.nnx`` modules: hand Variables to ``functional``, and store the new statistics."""

from unitnorm_jax.nnx._unitize import unitize as unitize
from unitnorm_jax.nnx._unitized_batch_norm import UnitizedBatchNorm as UnitizedBatchNorm
