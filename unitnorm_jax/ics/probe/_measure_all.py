"""The shift of all layers of a model, in few programs."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.probe._groups import Block, in_groups, sides
from unitnorm_jax.ics.probe._measure import Measure, measure, weighted
from unitnorm_jax.ics.probe._measure_tiles import fits, measure_tiles


def measure_all(
    blocks: Sequence[Block],
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
    options: dict[str, Any] = {"method": method, "tolerance": tolerance}
    one_by_one = functools.partial(measure, **options)
    if weights is not None:
        one_by_one = functools.partial(weighted, weights=weights, **options)

    def of_group(key: Any, members: list[Block]) -> Measure:
        if isinstance(key, int):
            return measure_tiles(members, method, tolerance)
        return jax.lax.map(lambda pair: one_by_one(*pair), sides(members))

    keys = [
        x.shape[1] if weights is None and fits(x) else (x.shape[1:], x.dtype) for x, _ in blocks
    ]
    return in_groups(blocks, keys, of_group)


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
