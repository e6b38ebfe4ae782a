"""Sums over the numbers of samples, tile by tile: one program for layers of any dimension.

To compile what is measured takes longer than the model's own forward pass where it is done for
each shape. So layers are cut into tiles of as many columns, of which one loop takes care.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from unitnorm_jax.ics.bounds import _lower
from unitnorm_jax.ics.distances import _cost, _rounding, _samples
from unitnorm_jax.ics.distances._line import line_em_distance
from unitnorm_jax.ics.probe._groups import Block, sides

_SIDE_BY_SIDE = 2**20  # numbers of layers that are looked at together
_COLUMNS = 1024  # of a tile: with 64 samples it stays in the cache of a core


class Tiles(NamedTuple):
    """Layers of as many samples, (tiles, n, columns), and what is known of them."""

    x: jax.Array
    y: jax.Array
    dimensions: tuple[int, ...]
    """Of each layer."""

    @property
    def columns(self) -> int:
        """Columns of a tile."""
        return self.x.shape[2]

    @property
    def counts(self) -> np.ndarray:
        """Tiles of each layer."""
        return np.array([-(-d // self.columns) for d in self.dimensions], np.int32)

    @property
    def inner(self) -> int:
        """Tiles that are added up before they join the rest: sums of sums meet few roundings."""
        return math.ceil(math.sqrt(self.counts.max()))

    @property
    def more(self) -> int:
        """Roundings that a sum over tiles adds to those in a tile."""
        return self.inner + math.ceil(self.counts.max() / self.inner)

    @property
    def height(self) -> int:
        """Roundings that a term meets in a sum over all numbers of a sample, at most."""
        return _rounding.tree_depth(self.columns) + self.more


class Sums(NamedTuple):
    """What tiles are added up to; all of scaled samples."""

    costs: jax.Array  # (n, n) squares of the distances
    x: jax.Array  # (n,) |x_i|^2
    y: jax.Array  # (n,)
    apart: jax.Array  # (n,) |x_i - y_i|^2
    product: jax.Array  # (n,) (x_i - y_i) . (x_i + y_i)
    x_centred: jax.Array  # (n,) |x_i - E x|^2
    x_radius: jax.Array  # (n,) |x_i - m|^2, m between the means
    y_radius: jax.Array  # (n,)
    mean_apart: jax.Array  # () |E (x - y)|^2
    moments: jax.Array  # () var x + var y + |E x - E y|^2
    x_offset: jax.Array  # () |E x - x_0|^2
    y_offset: jax.Array  # () |E y - x_0|^2
    offset: jax.Array  # () |m - x_0|^2
    coordinates: jax.Array  # () sum of the squares of W1 of every coordinate


class Largest(NamedTuple):
    """Of what the largest over the coordinates is wanted."""

    coordinate: jax.Array  # () W1 of a coordinate
    moments: jax.Array  # (3,) differences of moments, L3 before rounding


class Facts(NamedTuple):
    """Of each layer, (layers,)."""

    exponent: jax.Array
    """The numbers are scaled by its power of two."""
    finite_before: jax.Array
    finite_after: jax.Array
    same: jax.Array
    """Whether each sample is the same on both sides, bit by bit."""
    constant: jax.Array
    """Whether all samples before are the same."""


def cut(blocks: Sequence[Block]) -> Tiles:
    """Cut pairs of blocks (k, n, d) into tiles, zeros in the last columns of the last ones."""
    dtype = _rounding.working_dtype(*[z for pair in blocks for z in pair])
    largest = max(x.shape[2] for x, _ in blocks)
    unit = 16 if largest <= 64 else 64
    columns = min(_COLUMNS, -(-largest // unit) * unit)
    x, y = sides(
        [(_cut(x.astype(dtype), columns), _cut(y.astype(dtype), columns)) for x, y in blocks]
    )
    return Tiles(x, y, tuple(x.shape[2] for x, _ in blocks for _ in range(x.shape[0])))


def look(tiles: Tiles) -> Facts:
    """Return what has to be known before numbers are added up."""
    n = tiles.x.shape[1]

    def one(x: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        finite = [jnp.all(jnp.isfinite(z)) for z in (x, y)]
        size = jnp.maximum(jnp.max(jnp.abs(x)), jnp.max(jnp.abs(y)))
        size = jnp.where(finite[0] & finite[1], size, 0)
        same = jnp.all(_rounding.same_rows(x, y))
        constant = jnp.all(_rounding.same_rows(x, jnp.broadcast_to(x[:1], x.shape)))
        return size, *finite, same, constant

    size, *flags = jax.vmap(one)(tiles.x, tiles.y)
    owner = np.repeat(np.arange(len(tiles.dimensions)), tiles.counts)
    per_layer = functools.partial(
        jax.ops.segment_max,
        segment_ids=jnp.asarray(owner),
        num_segments=len(tiles.dimensions),
        indices_are_sorted=True,
    )
    largest = per_layer(size)
    before, after, same, constant = (1 - per_layer(1 - f.astype(jnp.int32)) == 1 for f in flags)
    target = [_rounding.target_exponent(d * n**2, size.dtype) for d in tiles.dimensions]
    exponent = jnp.where(largest > 0, np.array(target, np.int32) - jnp.frexp(largest)[1], 0)
    return Facts(exponent, before, after, same, constant)


def add_up(tiles: Tiles, facts: Facts) -> tuple[Sums, Largest]:
    """Return the sums of each layer, (layers, ...); of 0 for samples that are not finite."""
    counts = tiles.counts
    starts = (np.cumsum(counts) - counts).astype(np.int32)
    n = tiles.x.shape[1]
    of_tile = lambda z: z[np.repeat(np.arange(len(counts)), counts)][:, None, None]  # noqa: E731
    exponents = of_tile(facts.exponent)
    finite = of_tile(facts.finite_before & facts.finite_after)
    # Before the loop, in which XLA would scale again in each of the sums.
    x, y = (jnp.where(finite, _rounding.times_power_of_two(z, exponents), 0) for z in tiles[:2])

    if counts.max() == 1 and x.size <= _SIDE_BY_SIDE:  # small operations, one for all layers
        return jax.vmap(_of_tile)(*lax.optimization_barrier((x, y)))

    def layer(each: tuple[jax.Array, ...]) -> tuple[Sums, Largest]:
        start, count = each

        def step(i: jax.Array) -> tuple[Sums, Largest]:
            pair = (lax.dynamic_index_in_dim(z, start + i, keepdims=False) for z in (x, y))
            return _of_tile(*lax.optimization_barrier(tuple(pair)))

        return _nested(step, count, tiles.inner, _zeros(n, tiles.x.dtype))

    return lax.map(layer, (jnp.asarray(starts), jnp.asarray(counts)))


def cost_error(tiles: Tiles) -> _cost.CostError:
    """Return the error of the square roots of `Sums.costs`, that of the largest dimension."""
    n, dtype, total = tiles.x.shape[1], tiles.x.dtype, max(tiles.dimensions)
    return _cost.cost_error(n, n, tiles.columns, dtype, more=tiles.more, total=total)


def _of_tile(x: jax.Array, y: jax.Array) -> tuple[Sums, Largest]:
    rows = _sum_of_rows
    apart, dx, dy = x - y, x - x[:1], y - x[:1]  # a common offset would swamp the means
    mx, my, mean_apart = (_samples.mean(z) for z in (dx, dy, apart))
    point = (mx + my) / 2
    x_centred, y_centred = jnp.square(dx - mx[None, :]), jnp.square(dy - my[None, :])
    moments = _samples.mean(x_centred) + _samples.mean(y_centred) + jnp.square(mx - my)
    distances = line_em_distance(x, y)
    sums = Sums(
        costs=_cost.squared_costs(x, y),
        x=rows(jnp.square(x)),
        y=rows(jnp.square(y)),
        apart=rows(jnp.square(apart)),
        product=rows(apart * (x + y)),
        x_centred=rows(x_centred),
        x_radius=rows(jnp.square(dx - point[None, :])),
        y_radius=rows(jnp.square(dy - point[None, :])),
        mean_apart=_rounding.tree_sum(jnp.square(mean_apart)),
        moments=_rounding.tree_sum(moments),
        x_offset=_rounding.tree_sum(jnp.square(mx)),
        y_offset=_rounding.tree_sum(jnp.square(my)),
        offset=_rounding.tree_sum(jnp.square(point)),
        coordinates=_rounding.tree_sum(jnp.square(distances)),
    )
    differences = [jnp.max(_lower.moment_differences(x, y, p)) for p in _lower.ORDERS]
    return sums, Largest(jnp.max(distances), jnp.stack(differences))


def _sum_of_rows(z: jax.Array) -> jax.Array:
    """`tree_sum` along axis 1, three levels at a time: fewer operations to compile and run."""
    while (columns := z.shape[1]) > 1:
        parts = 8 if columns % 8 == 0 else columns
        width = columns // parts
        z = _rounding.tree_sum_of(
            lax.slice_in_dim(z, i * width, (i + 1) * width, axis=1) for i in range(parts)
        )
    return z[:, 0]


def _zeros(n: int, dtype: Any) -> tuple[Sums, Largest]:
    number, row = jnp.zeros((), dtype), jnp.zeros((n,), dtype)
    sums = Sums(jnp.zeros((n, n), dtype), *[row] * 7, *[number] * 6)
    return sums, Largest(number, jnp.zeros((len(_lower.ORDERS),), dtype))


def _nested(step: Callable[[jax.Array], Any], count: jax.Array, inner: int, zeros: Any) -> Any:
    """Add up ``step(i)``, some at a time."""

    def together(one: Any, other: Any) -> Any:
        sums = jax.tree.map(jnp.add, one[0], other[0])
        return sums, jax.tree.map(jnp.maximum, one[1], other[1])

    def block(j: jax.Array, total: Any) -> Any:
        first = j * inner
        last = jnp.minimum(first + inner, count)
        part = lax.fori_loop(first, last, lambda i, part: together(part, step(i)), zeros)
        return together(total, part)

    return lax.fori_loop(0, -(-count // inner), block, zeros)


def _cut(block: jax.Array, columns: int) -> jax.Array:
    """Return the tiles of (k, n, d): (k tiles, n, columns)."""
    k, n, d = block.shape
    tiles = math.ceil(d / columns)
    padded = jnp.pad(block, ((0, 0), (0, 0), (0, tiles * columns - d)))
    return padded.reshape(k, n, tiles, columns).transpose(0, 2, 1, 3).reshape(-1, n, columns)
