"""The shift of all layers of a model, in few programs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.probe._measure import Measure, measure, weighted
from unitnorm_jax.ics.probe._measure_tiles import fits, measure_tiles
from unitnorm_jax.ics.probe._tiles import joined


def measure_all(
    blocks: list[tuple[jax.Array, ...]],
    method: str | Solver,
    tolerance: float | int,
    weights: np.ndarray | None = None,
) -> Measure:
    """Measure pairs of blocks (k, n, d), each of k layers; those of one n together.

    Args:
        blocks: Before and after.
        method: As in `em_distance`.
        tolerance: As in `em_distance`.
        weights: Of the samples, (n,).
    """
    groups: dict[Any, list[int]] = {}
    for i, (x, _) in enumerate(blocks):
        one = weights is None and fits(x)
        groups.setdefault(x.shape[1] if one else (x.shape[1:], x.dtype), []).append(i)
    results = []
    order: list[int] = []
    starts = np.cumsum([0, *(len(x) for x, _ in blocks)])
    for key, members in groups.items():
        pairs = [blocks[i] for i in members]
        if isinstance(key, int):
            results.append(measure_tiles(pairs, method, tolerance))
        else:
            x, y = (joined([pair[side] for pair in pairs]) for side in (0, 1))
            one_by_one = functools.partial(measure, method=method, tolerance=tolerance)
            if weights is not None:
                one_by_one = functools.partial(
                    weighted, weights=weights, method=method, tolerance=tolerance
                )
            results.append(jax.lax.map(lambda xy, one=one_by_one: one(*xy), (x, y)))
        order.extend(k for i in members for k in range(starts[i], starts[i + 1]))
    if len(results) == 1:
        return results[0]
    place = np.argsort(order)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts)[place], *results)


def with_gaps(measures: Measure | None, measured: list[bool]) -> Measure:
    """Return the measures of all layers, NaN for those that were not measured.

    Args:
        measures: Of those that were, or None where there is none.
        measured: Of each layer, whether it was.
    """
    if measures is None:
        one = jnp.zeros((1, 1))
        shapes = jax.eval_shape(functools.partial(measure, method="pairing"), one, one)
        measures = jax.tree.map(lambda s: jnp.zeros((0,), s.dtype), shapes)
    if all(measured):
        return measures
    count = sum(measured)
    place = np.full(len(measured), count)
    place[np.flatnonzero(measured)] = np.arange(count)

    def filled(values: jax.Array) -> jax.Array:
        gap = False if values.dtype == bool else jnp.nan
        return jnp.concatenate([values, jnp.full((1,), gap, values.dtype)])[place]

    return jax.tree.map(filled, measures)
