"""Pure functions: arrays in, arrays out, state as NamedTuples; no Flax."""

from unitnorm_jax.functional._batch_norm import batch_norm as batch_norm
from unitnorm_jax.functional._folded_batch_norm import FoldedWeights as FoldedWeights
from unitnorm_jax.functional._folded_batch_norm import fold_batch_norm as fold_batch_norm
from unitnorm_jax.functional._numerics.arguments import check_unit as check_unit
from unitnorm_jax.functional._numerics.batch_statistics import BatchStats as BatchStats
from unitnorm_jax.functional._unitized_batch_norm import unitized_batch_norm as unitized_batch_norm
