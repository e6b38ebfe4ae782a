"""Pure functions: arrays in, arrays out, state as NamedTuples; no Flax."""

from unitnorm_jax.functional._arguments import check_axes as check_axes
from unitnorm_jax.functional._arguments import check_axis as check_axis
from unitnorm_jax.functional._arguments import check_unit as check_unit
from unitnorm_jax.functional._batch_statistics import BatchStats as BatchStats
from unitnorm_jax.functional.batch_channel_norm import batch_channel_norm as batch_channel_norm
from unitnorm_jax.functional.batch_channel_norm import check_groups as check_groups
from unitnorm_jax.functional.dataset_normalization import DatasetStats as DatasetStats
from unitnorm_jax.functional.dataset_normalization import dataset_stats as dataset_stats
from unitnorm_jax.functional.dataset_normalization import normalize_dataset as normalize_dataset
from unitnorm_jax.functional.estimated_batch_norm import (
    estimated_batch_norm as estimated_batch_norm,
)
from unitnorm_jax.functional.norm_prop import covariance_bound as covariance_bound
from unitnorm_jax.functional.norm_prop import max_pool_moments as max_pool_moments
from unitnorm_jax.functional.norm_prop import norm_prop_activation as norm_prop_activation
from unitnorm_jax.functional.norm_prop import norm_prop_gain as norm_prop_gain
from unitnorm_jax.functional.norm_prop import norm_prop_kernel as norm_prop_kernel
from unitnorm_jax.functional.norm_prop import norm_prop_sum as norm_prop_sum
from unitnorm_jax.functional.unitized_batch_norm import unitized_batch_norm as unitized_batch_norm
from unitnorm_jax.functional.weight_standardization import (
    weight_standardization as weight_standardization,
)
