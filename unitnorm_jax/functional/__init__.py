"""Pure functions: arrays in, arrays out, state as NamedTuples; no Flax."""

from unitnorm_jax.functional._arguments import check_axes as check_axes
from unitnorm_jax.functional._arguments import check_axis as check_axis
from unitnorm_jax.functional._arguments import check_unit as check_unit
from unitnorm_jax.functional._batch_statistics import BatchStats as BatchStats
from unitnorm_jax.functional.batch_channel_norm import batch_channel_norm as batch_channel_norm
from unitnorm_jax.functional.batch_channel_norm import check_groups as check_groups
from unitnorm_jax.functional.estimated_batch_norm import (
    estimated_batch_norm as estimated_batch_norm,
)
from unitnorm_jax.functional.unitized_batch_norm import unitized_batch_norm as unitized_batch_norm
