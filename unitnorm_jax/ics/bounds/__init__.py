"""Bounds of the Earth Mover distance, below and above, in closed form."""

from unitnorm_jax.ics.bounds._lower import mean_lower_bound as mean_lower_bound
from unitnorm_jax.ics.bounds._lower import moment_lower_bound as moment_lower_bound
from unitnorm_jax.ics.bounds._lower import norm_lower_bound as norm_lower_bound
from unitnorm_jax.ics.bounds._lower import projection_lower_bound as projection_lower_bound
from unitnorm_jax.ics.bounds._penalty import layer_positions as layer_positions
from unitnorm_jax.ics.bounds._penalty import unitized_bound_penalty as unitized_bound_penalty
from unitnorm_jax.ics.bounds._unitized import unit_radius as unit_radius
from unitnorm_jax.ics.bounds._unitized import unitized_upper_bound as unitized_upper_bound
from unitnorm_jax.ics.bounds._upper import moment_upper_bound as moment_upper_bound
from unitnorm_jax.ics.bounds._upper import (
    moment_upper_bound_from_statistics as moment_upper_bound_from_statistics,
)
from unitnorm_jax.ics.bounds._upper import pairing_upper_bound as pairing_upper_bound
from unitnorm_jax.ics.bounds._upper import radius_upper_bound as radius_upper_bound
