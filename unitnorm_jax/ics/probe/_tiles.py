"""Sums over the numbers of samples, tile by tile: one program for layers of any dimension.

To compile what is measured takes longer than the model's own forward pass where it is done for
each shape. So layers are cut into tiles of as many columns, of which one loop takes care.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

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
    owner: np.ndarray
    """The layer of each tile; those of one layer follow each other."""

    @property
    def columns(self) -> int:
        """Columns of a tile."""
        return self.x.shape[2]

    @property
    def counts(self) -> np.ndarray:
        """Tiles of each layer."""
        return np.bincount(self.owner).astype(np.int32)

    @property
    def starts(self) -> np.ndarray:
        """The first tile of each layer."""
        return np.unique(self.owner, return_index=True)[1].astype(np.int32)

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


ROWS = ("x", "y", "apart", "x_centred", "x_radius", "y_radius", "product")
"""|x_i|^2, |y_i|^2, |x_i - y_i|^2, |x_i - E x|^2, |x_i - m|^2 and |y_i - m|^2 with m between the
means, (x_i - y_i) . (x_i + y_i)."""
NUMBERS = ("mean_apart", "moments", "coordinates", "x_offset", "y_offset", "offset")
"""|E (x - y)|^2, var x + var y + |E x - E y|^2, the sum of the squares of W1 of every coordinate,
|E x - x_0|^2, |E y - x_0|^2, |m - x_0|^2."""


class Sums(NamedTuple):
    """What tiles are added up to, of each layer; all of scaled samples."""

    costs: jax.Array
    """(layers, n, n), squares of the distances."""
    rows: jax.Array
    """(layers, 7, n), `ROWS`."""
    numbers: jax.Array
    """(layers, 6), `NUMBERS`."""


class Largest(NamedTuple):
    """Of what the largest over the coordinates is wanted."""

    coordinate: jax.Array
    """(layers,), W1 of a coordinate."""
    moments: jax.Array
    """(layers, 3), differences of moments, L3 before rounding."""


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
    first = np.cumsum([0, *(len(x) for x, _ in blocks)])
    dimensions = tuple(x.shape[2] for x, _ in blocks for _ in range(len(x)))
    tiles, owners = [], []
    for d in dict.fromkeys(dimensions):  # All of one shape at once: each takes time to compile.
        members = [i for i, (x, _) in enumerate(blocks) if x.shape[2] == d]
        pair = sides([blocks[i] for i in members])
        tiles.append((_cut(pair[0].astype(dtype), columns), _cut(pair[1].astype(dtype), columns)))
        layers = np.concatenate([np.arange(first[i], first[i + 1]) for i in members])
        owners.append(np.repeat(layers, -(-d // columns)))
    return Tiles(*sides(tiles), dimensions, np.concatenate(owners))


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
    # The tiles of each layer, its first one again in the place of those that it lacks.
    index = np.arange(tiles.counts.max())
    index = np.where(
        index < tiles.counts[:, None], tiles.starts[:, None] + index, tiles.starts[:, None]
    )
    of_tiles = jnp.stack([size, *(~flag for flag in flags)])
    largest, *wrong = jnp.max(of_tiles[:, index], axis=2)
    before, after, same, constant = (w == 0 for w in wrong)
    target = [_rounding.target_exponent(d * n**2, size.dtype) for d in tiles.dimensions]
    exponent = jnp.where(largest > 0, np.array(target, np.int32) - jnp.frexp(largest)[1], 0)
    return Facts(exponent, before, after, same, constant)


def add_up(tiles: Tiles, facts: Facts) -> tuple[Sums, Largest]:
    """Return the sums and maxima of each layer; of 0 for samples that are not finite."""
    n = tiles.x.shape[1]
    of_tile = lambda z: z[tiles.owner][:, None, None]  # noqa: E731
    exponents = of_tile(facts.exponent)
    finite = of_tile(facts.finite_before & facts.finite_after)
    # Before the loop, in which XLA would scale again in each of the sums.
    x, y = (jnp.where(finite, _rounding.times_power_of_two(z, exponents), 0) for z in tiles[:2])

    if tiles.counts.max() == 1 and x.size <= _SIDE_BY_SIDE:  # small operations, one for all layers
        pair = lax.optimization_barrier((x[tiles.starts], y[tiles.starts]))
        return _unflat(n, *jax.vmap(_of_tile)(*pair))

    # One loop over all tiles, which adds some up before they join the rest: few roundings.
    def step(i: jax.Array, state: _State) -> _State:
        pair = (lax.dynamic_index_in_dim(z, i, keepdims=False) for z in (x, y))
        sums, largest = _of_tile(*lax.optimization_barrier(tuple(pair)))
        owner = jnp.asarray(tiles.owner)[i]
        place = i - jnp.asarray(tiles.starts)[owner]
        starts = place % tiles.inner == 0
        total = jnp.where(starts, state.total + state.part, state.total)
        total = jnp.where(place == 0, 0, total)
        part = jnp.where(starts, sums, state.part + sums)
        largest = jnp.where(place == 0, largest, jnp.maximum(state.largest, largest))
        put = functools.partial(lax.dynamic_update_index_in_dim, index=owner, axis=0)
        return _State(
            part, total, largest, put(state.sums, total + part), put(state.maxima, largest)
        )

    sums, largest = (jnp.zeros((k,), x.dtype) for k in (n * (n + len(ROWS)) + len(NUMBERS), 4))
    layers = (jnp.zeros((len(tiles.dimensions), *z.shape), z.dtype) for z in (sums, largest))
    done = lax.fori_loop(0, len(tiles.owner), step, _State(sums, sums, largest, *layers))
    return _unflat(n, done.sums, done.maxima)


class _State(NamedTuple):
    part: jax.Array
    total: jax.Array
    largest: jax.Array
    sums: jax.Array  # of layers, of one that is not done so far
    maxima: jax.Array


def _unflat(n: int, sums: jax.Array, maxima: jax.Array) -> tuple[Sums, Largest]:
    costs, rows, numbers = jnp.split(sums, [n * n, n * (n + len(ROWS))], axis=1)
    shapes = costs.reshape(-1, n, n), rows.reshape(-1, len(ROWS), n)
    return Sums(*shapes, numbers), Largest(maxima[:, 0], maxima[:, 1:])


def cost_error(tiles: Tiles) -> _cost.CostError:
    """Return the error of the square roots of `Sums.costs`, that of the largest dimension."""
    n, dtype, total = tiles.x.shape[1], tiles.x.dtype, max(tiles.dimensions)
    return _cost.cost_error(n, n, tiles.columns, dtype, more=tiles.more, total=total)


def _of_tile(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return `Sums` and `Largest` of one tile, each in one array: each costs a program."""
    apart, dx, dy = x - y, x - x[:1], y - x[:1]  # a common offset would swamp the means
    mx, my, mean_apart = _samples.mean(jnp.stack([dx, dy, apart], axis=1))
    point = (mx + my) / 2
    x_centred, y_centred = jnp.square(dx - mx[None, :]), jnp.square(dy - my[None, :])
    variances = _samples.mean(jnp.stack([x_centred, y_centred], axis=1))
    distances = line_em_distance(x, y)
    rows = {
        "x": jnp.square(x),
        "y": jnp.square(y),
        "apart": jnp.square(apart),
        "x_centred": x_centred,
        "x_radius": jnp.square(dx - point[None, :]),
        "y_radius": jnp.square(dy - point[None, :]),
        "product": apart * (x + y),
    }
    numbers = {
        "mean_apart": jnp.square(mean_apart),
        "moments": variances[0] + variances[1] + jnp.square(mx - my),
        "coordinates": jnp.square(distances),
        "x_offset": jnp.square(mx),
        "y_offset": jnp.square(my),
        "offset": jnp.square(point),
    }
    sums = [
        _cost.squared_costs(x, y).ravel(),
        _sum_of_rows([rows[name] for name in ROWS]).ravel(),
        _rounding.tree_sum(jnp.stack([numbers[name] for name in NUMBERS], axis=1)),
    ]
    coordinates = jnp.concatenate([distances[None], _lower.moment_differences(x, y, _lower.ORDERS)])
    return jnp.concatenate(sums), jnp.max(coordinates, axis=1)


def _sum_of_rows(arrays: Sequence[jax.Array]) -> jax.Array:
    """`tree_sum` along axis 1, three levels at a time: fewer operations to compile and run."""
    z = jnp.stack([_of_eighths(z) for z in arrays])
    while z.shape[2] > 1:
        z = _of_eighths(z)
    return z[..., 0]


def _of_eighths(z: jax.Array) -> jax.Array:
    """Add up the eighths of the last axis; where it has none, its numbers."""
    columns = z.shape[-1]
    parts = 8 if columns % 8 == 0 else columns
    width = columns // parts
    return _rounding.tree_sum_of(
        lax.slice_in_dim(z, i * width, (i + 1) * width, axis=z.ndim - 1) for i in range(parts)
    )


def _cut(block: jax.Array, columns: int) -> jax.Array:
    """Return the tiles of (k, n, d): (k tiles, n, columns)."""
    k, n, d = block.shape
    tiles = math.ceil(d / columns)
    padded = jnp.pad(block, ((0, 0), (0, 0), (0, tiles * columns - d)))
    return padded.reshape(k, n, tiles, columns).transpose(0, 2, 1, 3).reshape(-1, n, columns)
