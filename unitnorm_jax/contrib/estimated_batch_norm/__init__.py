"""Batch normalization by estimated statistics (Qiao et al., 2019)."""

from unitnorm_jax.contrib.estimated_batch_norm._functional import (
    estimated_batch_norm as estimated_batch_norm,
)
from unitnorm_jax.contrib.estimated_batch_norm._linen import (
    EstimatedBatchNorm as EstimatedBatchNorm,
)
