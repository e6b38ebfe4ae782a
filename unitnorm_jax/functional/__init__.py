"""Pure functions: arrays in, arrays out, state as NamedTuples; no Flax."""

from unitnorm_jax.functional.unitized_batch_norm import BatchStats as BatchStats
from unitnorm_jax.functional.unitized_batch_norm import unitized_batch_norm as unitized_batch_norm
