"""Every public function that takes two samples, and what it says about W1."""

import jax
import jax.numpy as jnp

from unitnorm_jax import ics


def _bounds_of(distance):
    return {"lower": distance.lower}, {"upper": distance.upper}


def _measure(x, y):
    m = ics.measure(x, y)
    return {**m.lower, "lower": m.distance.lower}, {**m.upper, "upper": m.distance.upper}


# name -> (x, y) -> lower bounds on W1, upper bounds on W1
BOUNDS = {
    "em_distance": lambda x, y: _bounds_of(ics.em_distance(x, y)),
    "em_distance, pairing": lambda x, y: _bounds_of(ics.em_distance(x, y, method="pairing")),
    "em_distance, sinkhorn": lambda x, y: _bounds_of(ics.em_distance(x, y, method="sinkhorn")),
    "coordinate_em_distance": lambda x, y: ({"": ics.coordinate_em_distance(x, y).lower}, {}),
    "sliced_em_distance": lambda x, y: (
        {"": ics.sliced_em_distance(x, y, jax.random.key(0), num_directions=3).lower},
        {},
    ),
    "mean_lower_bound": lambda x, y: ({"": ics.mean_lower_bound(x, y)}, {}),
    "norm_lower_bound": lambda x, y: ({"": ics.norm_lower_bound(x, y)}, {}),
    **{
        f"moment_lower_bound, {p}": lambda x, y, p=p: (
            {"": ics.moment_lower_bound(x, y, order=p)},
            {},
        )
        for p in (1, 2, 3, 6)
    },
    "projection_lower_bound": lambda x, y: ({"": ics.projection_lower_bound(x, y)}, {}),
    "projection_lower_bound, direction": lambda x, y: (
        {"": ics.projection_lower_bound(x, y, jnp.arange(1.0, 1 + x.shape[1]))},
        {},
    ),
    "moment_upper_bound": lambda x, y: ({}, {"": ics.moment_upper_bound(x, y)}),
    "radius_upper_bound": lambda x, y: ({}, {"": ics.radius_upper_bound(x, y)}),
    "radius_upper_bound, point": lambda x, y: (
        {},
        {"": ics.radius_upper_bound(x, y, jnp.arange(1.0, 1 + x.shape[1]))},
    ),
    "pairing_upper_bound": lambda x, y: ({}, {"": ics.pairing_upper_bound(x, y)}),
    "measure": _measure,
}
# What is not in `measure`, or not the same there.
DIFFERENT = (
    "em_distance, sinkhorn",
    "sliced_em_distance",
    "projection_lower_bound, direction",
    "radius_upper_bound, point",
    "measure",
)
