"""Measure and bound internal covariate shift: distances between samples, with certificates."""

from unitnorm_jax.ics import bounds as bounds
from unitnorm_jax.ics import measures as measures
from unitnorm_jax.ics.bounds import layer_positions as layer_positions
from unitnorm_jax.ics.bounds import mean_lower_bound as mean_lower_bound
from unitnorm_jax.ics.bounds import moment_lower_bound as moment_lower_bound
from unitnorm_jax.ics.bounds import moment_upper_bound as moment_upper_bound
from unitnorm_jax.ics.bounds import (
    moment_upper_bound_from_statistics as moment_upper_bound_from_statistics,
)
from unitnorm_jax.ics.bounds import norm_lower_bound as norm_lower_bound
from unitnorm_jax.ics.bounds import pairing_upper_bound as pairing_upper_bound
from unitnorm_jax.ics.bounds import projection_lower_bound as projection_lower_bound
from unitnorm_jax.ics.bounds import radius_upper_bound as radius_upper_bound
from unitnorm_jax.ics.bounds import unit_radius as unit_radius
from unitnorm_jax.ics.bounds import unitized_bound_penalty as unitized_bound_penalty
from unitnorm_jax.ics.bounds import unitized_upper_bound as unitized_upper_bound
from unitnorm_jax.ics.distances import CoordinateEMDistance as CoordinateEMDistance
from unitnorm_jax.ics.distances import EMDistance as EMDistance
from unitnorm_jax.ics.distances import SlicedEMDistance as SlicedEMDistance
from unitnorm_jax.ics.distances import coordinate_em_distance as coordinate_em_distance
from unitnorm_jax.ics.distances import cost_matrix as cost_matrix
from unitnorm_jax.ics.distances import em_distance as em_distance
from unitnorm_jax.ics.distances import em_distance_from_costs as em_distance_from_costs
from unitnorm_jax.ics.distances import relative as relative
from unitnorm_jax.ics.distances import sliced_constant as sliced_constant
from unitnorm_jax.ics.distances import sliced_em_distance as sliced_em_distance
from unitnorm_jax.ics.distances import spread as spread
from unitnorm_jax.ics.probe import ICSProbe as ICSProbe
from unitnorm_jax.ics.probe import ICSRecord as ICSRecord
from unitnorm_jax.ics.probe import ICSReport as ICSReport
from unitnorm_jax.ics.probe import LayerICS as LayerICS
from unitnorm_jax.ics.probe import LayerOutput as LayerOutput
from unitnorm_jax.ics.probe import Measure as Measure
from unitnorm_jax.ics.probe import Packed as Packed
from unitnorm_jax.ics.probe import best_bounds as best_bounds
from unitnorm_jax.ics.probe import is_normalization as is_normalization
from unitnorm_jax.ics.probe import layer_filter as layer_filter
from unitnorm_jax.ics.probe import layer_order as layer_order
from unitnorm_jax.ics.probe import layer_outputs as layer_outputs
from unitnorm_jax.ics.probe import measure as measure
from unitnorm_jax.ics.probe import plot as plot
from unitnorm_jax.ics.probe import read_rows as read_rows
from unitnorm_jax.ics.probe import row_name as row_name
from unitnorm_jax.ics.probe import scalars as scalars
from unitnorm_jax.ics.probe import snapshot as snapshot
from unitnorm_jax.ics.probe import table as table
from unitnorm_jax.ics.probe import unpack as unpack
