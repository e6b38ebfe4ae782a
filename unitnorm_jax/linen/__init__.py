"""``flax.linen`` modules: fetch variables, call ``functional``, store."""

from unitnorm_jax.linen._add_alpha import add_alpha as add_alpha
from unitnorm_jax.linen._batch_norm import BatchNorm as BatchNorm
from unitnorm_jax.linen._drop_alpha import drop_alpha as drop_alpha
from unitnorm_jax.linen._unitize import UnitizedLayer as UnitizedLayer
from unitnorm_jax.linen._unitize import unitize as unitize
from unitnorm_jax.linen._unitize import unitized_layers as unitized_layers
from unitnorm_jax.linen._unitized_batch_norm import UnitizedBatchNorm as UnitizedBatchNorm
