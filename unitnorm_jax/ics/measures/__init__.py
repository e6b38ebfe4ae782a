"""Other measures of covariate shift, to set beside the Earth Mover distance."""

from unitnorm_jax.ics.measures._channel_em_distance import (
    channel_em_distance as channel_em_distance,
)
from unitnorm_jax.ics.measures._channels import Summary as Summary
from unitnorm_jax.ics.measures._channels import summary as summary
from unitnorm_jax.ics.measures._estimation_shift import EstimationShift as EstimationShift
from unitnorm_jax.ics.measures._estimation_shift import estimation_shift as estimation_shift
from unitnorm_jax.ics.measures._gaussian_w2 import gaussian_w2 as gaussian_w2
from unitnorm_jax.ics.measures._gradient_ics import GradientICS as GradientICS
from unitnorm_jax.ics.measures._gradient_ics import gradient_ics as gradient_ics
from unitnorm_jax.ics.measures._kernel_mean_matching import KernelWeights as KernelWeights
from unitnorm_jax.ics.measures._kernel_mean_matching import (
    kernel_mean_matching as kernel_mean_matching,
)
from unitnorm_jax.ics.measures._mmd import MMD as MMD
from unitnorm_jax.ics.measures._mmd import median_bandwidth as median_bandwidth
from unitnorm_jax.ics.measures._mmd import mmd as mmd
from unitnorm_jax.ics.measures._moment_drift import MomentDrift as MomentDrift
from unitnorm_jax.ics.measures._moment_drift import moment_drift as moment_drift
