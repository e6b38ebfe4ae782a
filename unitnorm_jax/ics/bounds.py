"""Closed-form bounds on W1 between two samples: U1-U3 from above, L1-L4 from below.

All hold for the samples themselves (as empirical distributions), as they are given: upper bounds
are rounded up and lower ones down, by the a-priori error of their evaluation. Between paired
samples that is about 1e-6 of the distance of the pairs (U3), so L1 to L3 resolve a small drift;
between others, and for L4 along a given direction, about 1e-6 of the size of the data. Samples
are (n, ...) and (m, ...), with the same trailing shape, taken as vectors of d numbers; n and m may
differ except in U3. The bounds are those of the project's specification, with proofs derived here.
"""

from unitnorm_jax.ics.lower_bounds import mean_lower_bound as mean_lower_bound
from unitnorm_jax.ics.lower_bounds import moment_lower_bound as moment_lower_bound
from unitnorm_jax.ics.lower_bounds import norm_lower_bound as norm_lower_bound
from unitnorm_jax.ics.lower_bounds import projection_lower_bound as projection_lower_bound
from unitnorm_jax.ics.unitized_bound import unit_radius as unit_radius
from unitnorm_jax.ics.unitized_bound import unitized_upper_bound as unitized_upper_bound
from unitnorm_jax.ics.upper_bounds import moment_upper_bound as moment_upper_bound
from unitnorm_jax.ics.upper_bounds import moments_upper_bound as moments_upper_bound
from unitnorm_jax.ics.upper_bounds import pairing_upper_bound as pairing_upper_bound
from unitnorm_jax.ics.upper_bounds import radius_upper_bound as radius_upper_bound
