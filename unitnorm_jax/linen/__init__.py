"""``flax.linen`` modules: fetch variables, call ``functional``, store."""

from unitnorm_jax.linen.add_alpha import add_alpha as add_alpha
from unitnorm_jax.linen.batch_channel_norm import BatchChannelNorm as BatchChannelNorm
from unitnorm_jax.linen.batch_kalman_norm import BatchKalmanNorm as BatchKalmanNorm
from unitnorm_jax.linen.estimated_batch_norm import EstimatedBatchNorm as EstimatedBatchNorm
from unitnorm_jax.linen.independent_component import (
    IndependentComponent as IndependentComponent,
)
from unitnorm_jax.linen.layer_moments import layer_moments as layer_moments
from unitnorm_jax.linen.noise_aware_batch_norm import collect_statistics as collect_statistics
from unitnorm_jax.linen.noise_aware_batch_norm import recalibrate as recalibrate
from unitnorm_jax.linen.noise_aware_batch_norm import track as track
from unitnorm_jax.linen.norm_prop import NormPropConv as NormPropConv
from unitnorm_jax.linen.norm_prop import NormPropDense as NormPropDense
from unitnorm_jax.linen.norm_prop import norm_prop_avg_pool as norm_prop_avg_pool
from unitnorm_jax.linen.norm_prop import norm_prop_max_pool as norm_prop_max_pool
from unitnorm_jax.linen.output_noise import noisy_outputs as noisy_outputs
from unitnorm_jax.linen.unitized_batch_norm import UnitizedBatchNorm as UnitizedBatchNorm
from unitnorm_jax.linen.weight_standardization import (
    WeightStandardizedConv as WeightStandardizedConv,
)
from unitnorm_jax.linen.weight_standardization import (
    WeightStandardizedDense as WeightStandardizedDense,
)
