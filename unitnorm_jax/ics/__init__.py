"""Measure and bound internal covariate shift: distances between samples, with certificates."""

from unitnorm_jax.ics.cascade import EMDistance as EMDistance
from unitnorm_jax.ics.coordinate import CoordinateEMDistance as CoordinateEMDistance
from unitnorm_jax.ics.coordinate import coordinate_em_distance as coordinate_em_distance
from unitnorm_jax.ics.em_distance import em_distance as em_distance
from unitnorm_jax.ics.relative import relative as relative
from unitnorm_jax.ics.relative import spread as spread
from unitnorm_jax.ics.sliced import SlicedEMDistance as SlicedEMDistance
from unitnorm_jax.ics.sliced import sliced_constant as sliced_constant
from unitnorm_jax.ics.sliced import sliced_em_distance as sliced_em_distance
