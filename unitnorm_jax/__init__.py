"""Bound, and measure, internal covariate shift in JAX."""

from unitnorm_jax import functional as functional
from unitnorm_jax import ics as ics
from unitnorm_jax import linen as linen
