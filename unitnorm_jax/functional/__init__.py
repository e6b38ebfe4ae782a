"""Pure functions: arrays in, arrays out, state as NamedTuples; no Flax."""

from unitnorm_jax.functional._arguments import check_axes as check_axes
from unitnorm_jax.functional._arguments import check_axis as check_axis
from unitnorm_jax.functional._arguments import check_unit as check_unit
from unitnorm_jax.functional._batch_statistics import BatchStats as BatchStats
from unitnorm_jax.functional.batch_channel_norm import batch_channel_norm as batch_channel_norm
from unitnorm_jax.functional.batch_channel_norm import check_groups as check_groups
from unitnorm_jax.functional.batch_kalman_norm import batch_kalman_norm as batch_kalman_norm
from unitnorm_jax.functional.batch_norm import batch_norm as batch_norm
from unitnorm_jax.functional.channel_activity import ChannelActivity as ChannelActivity
from unitnorm_jax.functional.channel_activity import channel_activity as channel_activity
from unitnorm_jax.functional.channel_activity import dead_channels as dead_channels
from unitnorm_jax.functional.channel_activity import mean_to_std as mean_to_std
from unitnorm_jax.functional.dataset_normalization import DatasetStats as DatasetStats
from unitnorm_jax.functional.dataset_normalization import dataset_stats as dataset_stats
from unitnorm_jax.functional.dataset_normalization import normalize_dataset as normalize_dataset
from unitnorm_jax.functional.enorm import EnormFactors as EnormFactors
from unitnorm_jax.functional.enorm import EnormGroup as EnormGroup
from unitnorm_jax.functional.enorm import enorm_chain as enorm_chain
from unitnorm_jax.functional.enorm import enorm_energy as enorm_energy
from unitnorm_jax.functional.enorm import enorm_factors as enorm_factors
from unitnorm_jax.functional.enorm import enorm_rescale as enorm_rescale
from unitnorm_jax.functional.enorm_sweep import enorm_sweep as enorm_sweep
from unitnorm_jax.functional.estimated_batch_norm import (
    estimated_batch_norm as estimated_batch_norm,
)
from unitnorm_jax.functional.folded_batch_norm import FoldedWeights as FoldedWeights
from unitnorm_jax.functional.folded_batch_norm import ImpliedPenalty as ImpliedPenalty
from unitnorm_jax.functional.folded_batch_norm import fold_batch_norm as fold_batch_norm
from unitnorm_jax.functional.folded_batch_norm import implied_penalty as implied_penalty
from unitnorm_jax.functional.kalman_update import check_gain as check_gain
from unitnorm_jax.functional.kalman_update import kalman_update as kalman_update
from unitnorm_jax.functional.linear_moments import linear_moments as linear_moments
from unitnorm_jax.functional.moments import Moments as Moments
from unitnorm_jax.functional.moments import add_moments as add_moments
from unitnorm_jax.functional.moments import normalized_moments as normalized_moments
from unitnorm_jax.functional.moments import relu_moments as relu_moments
from unitnorm_jax.functional.moments import sampled_moments as sampled_moments
from unitnorm_jax.functional.noise_aware_batch_norm import batch_statistics as batch_statistics
from unitnorm_jax.functional.noise_aware_batch_norm import pool_statistics as pool_statistics
from unitnorm_jax.functional.noise_aware_batch_norm import track_statistics as track_statistics
from unitnorm_jax.functional.norm_prop import covariance_bound as covariance_bound
from unitnorm_jax.functional.norm_prop import max_pool_moments as max_pool_moments
from unitnorm_jax.functional.norm_prop import norm_prop_activation as norm_prop_activation
from unitnorm_jax.functional.norm_prop import norm_prop_gain as norm_prop_gain
from unitnorm_jax.functional.norm_prop import norm_prop_kernel as norm_prop_kernel
from unitnorm_jax.functional.norm_prop import norm_prop_sum as norm_prop_sum
from unitnorm_jax.functional.output_noise import output_noise as output_noise
from unitnorm_jax.functional.unitized_batch_norm import unitized_batch_norm as unitized_batch_norm
from unitnorm_jax.functional.weight_noise import additive_noise as additive_noise
from unitnorm_jax.functional.weight_noise import chain_noise as chain_noise
from unitnorm_jax.functional.weight_noise import drift as drift
from unitnorm_jax.functional.weight_noise import multiplicative_noise as multiplicative_noise
from unitnorm_jax.functional.weight_noise import quantize as quantize
from unitnorm_jax.functional.weight_standardization import (
    weight_standardization as weight_standardization,
)
