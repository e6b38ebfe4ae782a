"""Batch Kalman normalization, and the moments that it propagates (Wang et al., 2018)."""

from unitnorm_jax.contrib.batch_kalman_norm._functional import (
    batch_kalman_norm as batch_kalman_norm,
)
from unitnorm_jax.contrib.batch_kalman_norm._kalman_update import check_gain as check_gain
from unitnorm_jax.contrib.batch_kalman_norm._kalman_update import kalman_update as kalman_update
from unitnorm_jax.contrib.batch_kalman_norm._layer_moments import layer_moments as layer_moments
from unitnorm_jax.contrib.batch_kalman_norm._linear_moments import linear_moments as linear_moments
from unitnorm_jax.contrib.batch_kalman_norm._linen import BatchKalmanNorm as BatchKalmanNorm
from unitnorm_jax.contrib.batch_kalman_norm._moments import Moments as Moments
from unitnorm_jax.contrib.batch_kalman_norm._moments import add_moments as add_moments
from unitnorm_jax.contrib.batch_kalman_norm._moments import normalized_moments as normalized_moments
from unitnorm_jax.contrib.batch_kalman_norm._moments import relu_moments as relu_moments
from unitnorm_jax.contrib.batch_kalman_norm._moments import sampled_moments as sampled_moments
