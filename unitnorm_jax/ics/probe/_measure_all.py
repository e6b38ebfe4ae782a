"""The shift of all layers of a model: those of one shape are measured together."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax.ics.distances._assignment import Solver
from unitnorm_jax.ics.distances._cascade import EMDistance
from unitnorm_jax.ics.distances._em_distance import em_distance
from unitnorm_jax.ics.probe._measure import Measure, around, measure, weighted

_SIDE_BY_SIDE = 2**22  # numbers in the cost matrices of layers that are measured side by side


def measure_all(
    blocks: list[tuple[jax.Array, ...]],
    method: str | Solver,
    tolerance: float | int,
    weights: np.ndarray | None = None,
) -> Measure:
    """Measure pairs of blocks (k, n, d), each of k layers; those of one shape together.

    Args:
        blocks: Before and after.
        method: As in `em_distance`.
        tolerance: As in `em_distance`.
        weights: Of the samples, (n,).
    """
    groups: dict[Any, list[int]] = {}
    for i, (x, _) in enumerate(blocks):
        groups.setdefault((x.shape[1:], x.dtype), []).append(i)
    results = []
    order: list[int] = []
    starts = np.cumsum([0, *(len(x) for x, _ in blocks)])
    for members in groups.values():
        x, y = (_joined([blocks[i][side] for i in members]) for side in (0, 1))
        if weights is None:
            results.append(_measure_group(x, y, method, tolerance))
        else:
            one = functools.partial(weighted, weights=weights, method=method, tolerance=tolerance)
            results.append(jax.lax.map(lambda xy, one=one: one(*xy), (x, y)))
        order.extend(k for i in members for k in range(starts[i], starts[i + 1]))
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


def _joined(blocks: list[jax.Array]) -> jax.Array:
    """`jnp.concatenate`, written once: XLA copies one into each operation that reads it."""
    total = sum(len(block) for block in blocks)
    if len(blocks) == 1:
        return blocks[0]
    joined = jnp.zeros((total, *blocks[0].shape[1:]), blocks[0].dtype)
    start = 0
    for block in blocks:
        joined = jax.lax.dynamic_update_slice_in_dim(joined, block, start, 0)
        start += len(block)
    return joined
