"""Measure and bound internal covariate shift: distances between samples, with certificates."""

from unitnorm_jax.ics import bounds as bounds
from unitnorm_jax.ics.capture import LayerOutput as LayerOutput
from unitnorm_jax.ics.capture import layer_outputs as layer_outputs
from unitnorm_jax.ics.cascade import EMDistance as EMDistance
from unitnorm_jax.ics.coordinate import CoordinateEMDistance as CoordinateEMDistance
from unitnorm_jax.ics.coordinate import coordinate_em_distance as coordinate_em_distance
from unitnorm_jax.ics.devices import Packed as Packed
from unitnorm_jax.ics.devices import snapshot as snapshot
from unitnorm_jax.ics.devices import unpacked as unpacked
from unitnorm_jax.ics.em_distance import em_distance as em_distance
from unitnorm_jax.ics.layers import is_normalization as is_normalization
from unitnorm_jax.ics.layers import layer_filter as layer_filter
from unitnorm_jax.ics.lower_bounds import mean_lower_bound as mean_lower_bound
from unitnorm_jax.ics.lower_bounds import moment_lower_bound as moment_lower_bound
from unitnorm_jax.ics.lower_bounds import norm_lower_bound as norm_lower_bound
from unitnorm_jax.ics.lower_bounds import projection_lower_bound as projection_lower_bound
from unitnorm_jax.ics.measure import Measure as Measure
from unitnorm_jax.ics.measure import measure as measure
from unitnorm_jax.ics.penalty import layer_positions as layer_positions
from unitnorm_jax.ics.penalty import unitized_bound_penalty as unitized_bound_penalty
from unitnorm_jax.ics.plot import plot as plot
from unitnorm_jax.ics.probe import ICSProbe as ICSProbe
from unitnorm_jax.ics.record import ICSRecord as ICSRecord
from unitnorm_jax.ics.record import read_rows as read_rows
from unitnorm_jax.ics.relative import relative as relative
from unitnorm_jax.ics.relative import spread as spread
from unitnorm_jax.ics.report import ICSReport as ICSReport
from unitnorm_jax.ics.report import LayerICS as LayerICS
from unitnorm_jax.ics.report import scalars as scalars
from unitnorm_jax.ics.report import table as table
from unitnorm_jax.ics.singularities import LayerActivity as LayerActivity
from unitnorm_jax.ics.singularities import (
    elimination_singularities as elimination_singularities,
)
from unitnorm_jax.ics.sliced import SlicedEMDistance as SlicedEMDistance
from unitnorm_jax.ics.sliced import sliced_constant as sliced_constant
from unitnorm_jax.ics.sliced import sliced_em_distance as sliced_em_distance
from unitnorm_jax.ics.unitized_bound import unit_radius as unit_radius
from unitnorm_jax.ics.unitized_bound import unitized_upper_bound as unitized_upper_bound
from unitnorm_jax.ics.upper_bounds import moment_upper_bound as moment_upper_bound
from unitnorm_jax.ics.upper_bounds import moments_upper_bound as moments_upper_bound
from unitnorm_jax.ics.upper_bounds import pairing_upper_bound as pairing_upper_bound
from unitnorm_jax.ics.upper_bounds import radius_upper_bound as radius_upper_bound
