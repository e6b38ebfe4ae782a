"""Other papers' normalizers: one folder a method; nothing in the library imports them."""

from unitnorm_jax.contrib import batch_channel_norm as batch_channel_norm
from unitnorm_jax.contrib import batch_kalman_norm as batch_kalman_norm
from unitnorm_jax.contrib import enorm as enorm
from unitnorm_jax.contrib import estimated_batch_norm as estimated_batch_norm
from unitnorm_jax.contrib import implied_penalty as implied_penalty
from unitnorm_jax.contrib import independent_component as independent_component
from unitnorm_jax.contrib import noise_aware_batch_norm as noise_aware_batch_norm
from unitnorm_jax.contrib import norm_prop as norm_prop
from unitnorm_jax.contrib import weight_standardization as weight_standardization
