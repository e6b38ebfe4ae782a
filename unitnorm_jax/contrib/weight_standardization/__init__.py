"""Weight standardization (Qiao et al., 2019)."""

from unitnorm_jax.contrib.weight_standardization._functional import (
    weight_standardization as weight_standardization,
)
from unitnorm_jax.contrib.weight_standardization._linen import (
    WeightStandardizedConv as WeightStandardizedConv,
)
