"""Equi-normalization of weights (Stock et al., 2019)."""

from unitnorm_jax.contrib.enorm._functional import EnormFactors as EnormFactors
from unitnorm_jax.contrib.enorm._functional import EnormGroup as EnormGroup
from unitnorm_jax.contrib.enorm._functional import enorm_chain as enorm_chain
from unitnorm_jax.contrib.enorm._functional import enorm_energy as enorm_energy
from unitnorm_jax.contrib.enorm._functional import enorm_factors as enorm_factors
from unitnorm_jax.contrib.enorm._functional import enorm_rescale as enorm_rescale
from unitnorm_jax.contrib.enorm._sweep import enorm_sweep as enorm_sweep
