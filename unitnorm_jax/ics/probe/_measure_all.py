"""The shift of all layers of a model, in few programs."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax.ics.distances import _rounding
from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.probe._groups import Block, in_groups, sides
from unitnorm_jax.ics.probe._measure import measure, weighted
from unitnorm_jax.ics.probe._measure_tiles import fits, measure_tiles
from unitnorm_jax.ics.probe._stacked import Stacked, of_no_layer, stack
from unitnorm_jax.ics.probe._tiles import is_large


def measure_all(
    blocks: Sequence[Block],
    method: str | Solver,
    tolerance: float | int,
    weights: np.ndarray | None = None,
) -> Stacked:
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

    def of_group(key: Any, members: list[Block]) -> Stacked:
        if key[0] == "tiles":
            return measure_tiles(members, method, tolerance)
        return stack(jax.lax.map(lambda pair: one_by_one(*pair), sides(members)))

    if not blocks:
        return of_no_layer()

    def key_of(i: int, x: jax.Array, y: jax.Array) -> tuple[Any, ...]:
        if weights is None and fits(x):
            if is_large(x):
                return "tiles", i
            # Of one dtype to compute in: float32 made float64 has 0 for subnormal numbers.
            return "tiles", x.shape[1], _rounding.working_dtype(x, y)
        return "alone", x.shape[1:], x.dtype

    return in_groups(blocks, [key_of(i, *pair) for i, pair in enumerate(blocks)], of_group)


def with_gaps(found: Any, measured: list[bool]) -> Any:
    """Return what was found of all layers, NaN or False for those that were not measured.

    Args:
        found: Arrays (..., layers) of those that were.
        measured: Of each layer, whether it was.
    """
    if all(measured):
        return found
    count = sum(measured)
    place = np.full(len(measured), count)
    place[np.flatnonzero(measured)] = np.arange(count)

    def filled(values: jax.Array) -> jax.Array:
        gap = False if values.dtype == bool else jnp.nan
        gaps = jnp.full((*values.shape[:-1], 1), gap, values.dtype)
        return jnp.concatenate([values, gaps], axis=-1)[..., place]

    return jax.tree.map(filled, found)
