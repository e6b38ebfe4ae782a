"""The ICS probe: capture layers of a Flax model, measure them, report and record."""

from unitnorm_jax.ics.probe._capture import LayerOutput as LayerOutput
from unitnorm_jax.ics.probe._capture import layer_outputs as layer_outputs
from unitnorm_jax.ics.probe._devices import Packed as Packed
from unitnorm_jax.ics.probe._devices import snapshot as snapshot
from unitnorm_jax.ics.probe._devices import unpack as unpack
from unitnorm_jax.ics.probe._layer_order import layer_order as layer_order
from unitnorm_jax.ics.probe._layers import is_normalization as is_normalization
from unitnorm_jax.ics.probe._layers import layer_filter as layer_filter
from unitnorm_jax.ics.probe._measure import Measure as Measure
from unitnorm_jax.ics.probe._measure import measure as measure
from unitnorm_jax.ics.probe._plot import plot as plot
from unitnorm_jax.ics.probe._probe import ICSProbe as ICSProbe
from unitnorm_jax.ics.probe._record import ICSRecord as ICSRecord
from unitnorm_jax.ics.probe._record import read_rows as read_rows
from unitnorm_jax.ics.probe._report import ICSReport as ICSReport
from unitnorm_jax.ics.probe._report import LayerICS as LayerICS
from unitnorm_jax.ics.probe._report import best_bounds as best_bounds
from unitnorm_jax.ics.probe._report import row_name as row_name
from unitnorm_jax.ics.probe._report import scalars as scalars
from unitnorm_jax.ics.probe._report import table as table
