"""Earth Mover distances between samples, each with a certificate."""

from unitnorm_jax.ics.distances._cascade import EMDistance as EMDistance
from unitnorm_jax.ics.distances._coordinate import CoordinateEMDistance as CoordinateEMDistance
from unitnorm_jax.ics.distances._coordinate import coordinate_em_distance as coordinate_em_distance
from unitnorm_jax.ics.distances._cost import cost_matrix as cost_matrix
from unitnorm_jax.ics.distances._em_distance import em_distance as em_distance
from unitnorm_jax.ics.distances._em_distance import (
    em_distance_from_costs as em_distance_from_costs,
)
from unitnorm_jax.ics.distances._relative import relative as relative
from unitnorm_jax.ics.distances._relative import spread as spread
from unitnorm_jax.ics.distances._sliced import SlicedEMDistance as SlicedEMDistance
from unitnorm_jax.ics.distances._sliced import sliced_constant as sliced_constant
from unitnorm_jax.ics.distances._sliced import sliced_em_distance as sliced_em_distance
