"""The shift of all layers of a model: those of one shape are measured together."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.distances._cascade import EMDistance
from unitnorm_jax.ics.distances._em_distance import em_distance
from unitnorm_jax.ics.probe._measure import Measure, around

_SIDE_BY_SIDE = 2**22  # numbers in the cost matrices of layers that are measured side by side


def measure_all(
    pairs: list[tuple[jax.Array, ...]], method: str | Solver, tolerance: float | int
) -> Measure:
    """Each pair of samples, stacked; those of one shape are measured together."""
    groups: dict[Any, list[int]] = {}
    for i, (x, _) in enumerate(pairs):
        groups.setdefault((x.shape, x.dtype), []).append(i)
    results = []
    for members in groups.values():
        x, y = (_stacked([pairs[i][side] for i in members]) for side in (0, 1))
        results.append(_measure_group(x, y, method, tolerance))
    place = np.argsort([i for members in groups.values() for i in members])
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[place], *results)


def _measure_group(
    x: jax.Array, y: jax.Array, method: str | Solver, tolerance: float | int
) -> Measure:
    """Pairs of samples (k, n, d), side by side but where a solver is needed."""

    def solved() -> EMDistance:
        one = functools.partial(em_distance, method=method, tolerance=tolerance)
        return jax.lax.map(lambda xy: one(*xy), (x, y))

    if x.shape[0] * x.shape[1] ** 2 > _SIDE_BY_SIDE:
        distances = solved()
        rest = lambda dxy: around(*dxy, tolerance=tolerance)  # noqa: E731
        return jax.lax.map(rest, (distances, x, y))
    if not callable(method) and method not in ("auto", "pairing"):
        distances = solved()
    else:
        # `vmap` makes one small operation of k, but would run the solver for all if for one.
        bounds = functools.partial(em_distance, method="pairing", tolerance=tolerance)
        distances = jax.vmap(bounds)(x, y)
        if method != "pairing":
            settled = distances.exact | jnp.isnan(distances.value)
            distances = jax.lax.cond(jnp.all(settled), lambda: distances, solved)
    return jax.vmap(functools.partial(around, tolerance=tolerance))(distances, x, y)


def _stacked(arrays: list[jax.Array]) -> jax.Array:
    """`jnp.stack`, written once: XLA copies a concatenation into each operation that reads it."""
    stacked = jnp.zeros((len(arrays), *arrays[0].shape), arrays[0].dtype)
    for i, array in enumerate(arrays):
        stacked = jax.lax.dynamic_update_index_in_dim(stacked, array, i, 0)
    return stacked
