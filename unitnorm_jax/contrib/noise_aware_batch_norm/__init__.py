"""Statistics for noisy weights: recalibrated, pooled or tracked (Tsai et al., 2020)."""

from unitnorm_jax.contrib.noise_aware_batch_norm._functional import (
    batch_statistics as batch_statistics,
)
from unitnorm_jax.contrib.noise_aware_batch_norm._functional import (
    pool_statistics as pool_statistics,
)
from unitnorm_jax.contrib.noise_aware_batch_norm._functional import (
    track_statistics as track_statistics,
)
from unitnorm_jax.contrib.noise_aware_batch_norm._linen import (
    collect_statistics as collect_statistics,
)
from unitnorm_jax.contrib.noise_aware_batch_norm._linen import recalibrate as recalibrate
from unitnorm_jax.contrib.noise_aware_batch_norm._linen import track as track
from unitnorm_jax.contrib.noise_aware_batch_norm._output_noise import (
    noisy_outputs as noisy_outputs,
)
from unitnorm_jax.contrib.noise_aware_batch_norm._output_noise import output_noise as output_noise
from unitnorm_jax.contrib.noise_aware_batch_norm._weight_noise import Noise as Noise
from unitnorm_jax.contrib.noise_aware_batch_norm._weight_noise import (
    additive_noise as additive_noise,
)
from unitnorm_jax.contrib.noise_aware_batch_norm._weight_noise import chain_noise as chain_noise
from unitnorm_jax.contrib.noise_aware_batch_norm._weight_noise import drift_noise as drift_noise
from unitnorm_jax.contrib.noise_aware_batch_norm._weight_noise import (
    multiplicative_noise as multiplicative_noise,
)
from unitnorm_jax.contrib.noise_aware_batch_norm._weight_noise import (
    quantization_noise as quantization_noise,
)
