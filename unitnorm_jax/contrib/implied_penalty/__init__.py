"""Batch normalization as a penalty on the folded weights (Annamalai and Thakur, 2022)."""

from unitnorm_jax.contrib.implied_penalty._functional import ImpliedPenalty as ImpliedPenalty
from unitnorm_jax.contrib.implied_penalty._functional import implied_penalty as implied_penalty
