"""Normalization propagation (Arpit et al., 2016)."""

from unitnorm_jax.contrib.norm_prop._dataset_normalization import DatasetStats as DatasetStats
from unitnorm_jax.contrib.norm_prop._dataset_normalization import dataset_stats as dataset_stats
from unitnorm_jax.contrib.norm_prop._dataset_normalization import (
    normalize_dataset as normalize_dataset,
)
from unitnorm_jax.contrib.norm_prop._functional import covariance_bound as covariance_bound
from unitnorm_jax.contrib.norm_prop._functional import max_pool_moments as max_pool_moments
from unitnorm_jax.contrib.norm_prop._functional import norm_prop_activation as norm_prop_activation
from unitnorm_jax.contrib.norm_prop._functional import norm_prop_gain as norm_prop_gain
from unitnorm_jax.contrib.norm_prop._functional import norm_prop_kernel as norm_prop_kernel
from unitnorm_jax.contrib.norm_prop._functional import norm_prop_sum as norm_prop_sum
from unitnorm_jax.contrib.norm_prop._linen import NormPropConv as NormPropConv
from unitnorm_jax.contrib.norm_prop._linen import NormPropDense as NormPropDense
from unitnorm_jax.contrib.norm_prop._linen import norm_prop_avg_pool as norm_prop_avg_pool
from unitnorm_jax.contrib.norm_prop._linen import norm_prop_max_pool as norm_prop_max_pool
