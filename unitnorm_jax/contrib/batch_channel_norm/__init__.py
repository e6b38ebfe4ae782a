"""Batch-channel normalization, and elimination singularities (Qiao et al., 2019)."""

from unitnorm_jax.contrib.batch_channel_norm._channel_activity import (
    ChannelActivity as ChannelActivity,
)
from unitnorm_jax.contrib.batch_channel_norm._channel_activity import (
    channel_activity as channel_activity,
)
from unitnorm_jax.contrib.batch_channel_norm._channel_activity import dead_channels as dead_channels
from unitnorm_jax.contrib.batch_channel_norm._channel_activity import mean_to_std as mean_to_std
from unitnorm_jax.contrib.batch_channel_norm._functional import (
    batch_channel_norm as batch_channel_norm,
)
from unitnorm_jax.contrib.batch_channel_norm._linen import BatchChannelNorm as BatchChannelNorm
from unitnorm_jax.contrib.batch_channel_norm._singularities import LayerActivity as LayerActivity
from unitnorm_jax.contrib.batch_channel_norm._singularities import (
    elimination_singularities as elimination_singularities,
)
