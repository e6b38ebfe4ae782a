"""The independent-component layer: normalization and dropout (Chen et al., 2019)."""

from unitnorm_jax.contrib.independent_component._linen import (
    IndependentComponent as IndependentComponent,
)
