"""Layers of any dimension in tiles of one shape: one program for all.

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

from unitnorm_jax.ics.distances import _rounding
from unitnorm_jax.ics.probe._groups import Block, sides

_SIDE_BY_SIDE = 2**20  # numbers of layers that are looked at together
_COLUMNS = 1024  # of a tile: with 64 samples it stays in the cache of a core
_LARGE = 2**27  # numbers of a layer that is not copied: half a GiB a side


class Tiles(NamedTuple):
    """Layers of as many samples, and what is known of them."""

    x: jax.Array
    """(tiles, n, columns); or a single block (layers, n, d) of large layers, which stays as it is:
    each tile is cut, made of one dtype and scaled when its turn comes."""
    y: jax.Array
    dimensions: tuple[int, ...]
    """Of each layer."""
    owner: np.ndarray
    """The layer of each tile; those of one layer follow each other."""
    columns: int
    """Columns of a tile."""
    powers: Any = None
    """Of large layers, once they are known: the exponents of their scales, and whether they are
    finite, (layers,)."""

    @property
    def whole(self) -> bool:
        """Whether x and y are a block as it is."""
        return self.x.shape[2] > self.columns

    @property
    def dtype(self) -> jnp.dtype:
        """Of the arithmetic."""
        return _rounding.working_dtype(self.x, self.y)

    def tile(self, i: Any, owner: Any, place: Any) -> tuple[jax.Array, jax.Array]:
        """Return both sides of a tile, (n, columns).

        Args:
            i: Its index.
            owner: Its layer.
            place: Its index among those of the layer.
        """
        if not self.whole:
            x, y = (lax.dynamic_index_in_dim(z, i, 0, keepdims=False) for z in self[:2])
            return x, y
        _, n, d = self.x.shape
        # The last one reaches back; what others have is 0 in it.
        first = (place * self.columns).astype(jnp.int32)
        start = jnp.minimum(first, d - self.columns)
        exponents, finite = (z[owner] for z in self.powers)
        used = finite & (start + np.arange(self.columns) >= first)

        def of(z: jax.Array) -> jax.Array:
            at = (owner.astype(jnp.int32), jnp.zeros_like(start), start)
            part = lax.dynamic_slice(z, at, (1, n, self.columns))[0].astype(self.dtype)
            return jnp.where(used, _rounding.times_power_of_two(part, exponents), 0)

        return of(self.x), of(self.y)

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


def is_large(block: jax.Array) -> bool:
    """Return whether the layers of a block (k, n, d) are to be a group of their own."""
    _, n, d = block.shape
    return n * d >= _LARGE and d > _COLUMNS


def cut(blocks: Sequence[Block]) -> Tiles:
    """Cut pairs of blocks (k, n, d) into tiles, zeros in the last columns of the last ones."""
    if is_large(blocks[0][0]):
        ((x, y),) = blocks
        k, _, d = x.shape
        return Tiles(x, y, (d,) * k, np.repeat(np.arange(k), -(-d // _COLUMNS)), _COLUMNS)
    dtype = _rounding.working_dtype(*[z for pair in blocks for z in pair])
    largest = max(x.shape[2] for x, _ in blocks)
    unit = 16 if largest <= 64 else 64
    columns = min(_COLUMNS, -(-largest // unit) * unit)
    first = np.cumsum([0, *(len(x) for x, _ in blocks)])
    dimensions = tuple(x.shape[2] for x, _ in blocks for _ in range(len(x)))
    tiles, owners = [], []
    for d in dict.fromkeys(dimensions):  # All of one shape at once: each takes time to compile.
        members = [i for i, (x, _) in enumerate(blocks) if x.shape[2] == d]
        # Of one dtype before they are joined: together, integers would be made half precision.
        pairs = [(blocks[i][0].astype(dtype), blocks[i][1].astype(dtype)) for i in members]
        before, after = sides(pairs)
        tiles.append((_cut(before, columns), _cut(after, columns)))
        layers = np.concatenate([np.arange(first[i], first[i + 1]) for i in members])
        owners.append(np.repeat(layers, -(-d // columns)))
    return Tiles(*sides(tiles), dimensions, np.concatenate(owners), columns)


def look(tiles: Tiles) -> Facts:
    """Return what has to be known before numbers are added up."""
    n, dtype = tiles.x.shape[1], tiles.dtype
    x, y = (z.astype(dtype) for z in tiles[:2])
    # In one pass: `jnp.max` of each takes twenty times as long on a CPU, and leaves out NaN there.
    numbers = (
        *(jnp.where(jnp.isnan(z), jnp.inf, jnp.abs(z)) for z in (x, y)),
        _rounding.differ(x, y).astype(dtype),
        _rounding.differ(x, x[:, :1]).astype(dtype),
    )
    zeros = (jnp.zeros((), dtype),) * len(numbers)
    larger = lambda a, b: tuple(map(jnp.maximum, a, b))  # noqa: E731
    found = jnp.stack(lax.reduce(numbers, zeros, larger, (1, 2)))
    if not tiles.whole:
        # The tiles of each layer, its first one again in the place of those that it lacks.
        index = np.arange(tiles.counts.max())
        index = np.where(
            index < tiles.counts[:, None], tiles.starts[:, None] + index, tiles.starts[:, None]
        )
        found = jnp.max(found[:, index], axis=2)
    before, after, apart, spread = found
    largest = jnp.maximum(before, after)
    target = [_rounding.target_exponent(d * n**2, dtype) for d in tiles.dimensions]
    known = (largest > 0) & (largest < jnp.inf)
    exponent = jnp.where(known, np.array(target, np.int32) - jnp.frexp(largest)[1], 0)
    return Facts(exponent, before < jnp.inf, after < jnp.inf, apart == 0, spread == 0)


def scaled(tiles: Tiles, facts: Facts) -> Tiles:
    """Return the tiles times the powers of two of their layers; 0 where these are not finite."""
    finite = facts.finite_before & facts.finite_after
    if tiles.whole:
        return tiles._replace(powers=(facts.exponent, finite))
    of_tile = lambda z: z[tiles.owner][:, None, None]  # noqa: E731
    exponents, finite = of_tile(facts.exponent), of_tile(finite)
    # Before any loop, in which XLA would scale again in each of the sums.
    x, y = (jnp.where(finite, _rounding.times_power_of_two(z, exponents), 0) for z in tiles[:2])
    return tiles._replace(x=x, y=y)


class _State(NamedTuple):
    part: Any
    total: Any
    found: Any  # of all layers, of one that is not done so far


def over_tiles(tiles: Tiles, of_tile: Callable[..., Any], maxima: int = 0) -> Any:
    """Add up what a function finds in the tiles of each layer, or take the largest.

    Args:
        tiles: Scaled.
        of_tile: From x and y of a tile (n, columns), its layer, and whether it is the one in the
            middle of the layer, to a tuple of arrays, the last of them a vector. (Few, for each
            takes time to compile; but none of a large array and what is yet to be computed: XLA's
            loop over both reads either where the other is, at addresses that may not exist, which
            it then ignores at a thousand cycles a vector.)
        maxima: How many of the last numbers, which are not negative, the largest is wanted of.

    Returns:
        The arrays, (layers, ...); a term of a sum meets `Tiles.more` roundings.
    """
    layers = len(tiles.dimensions)
    if tiles.counts.max() == 1 and tiles.x.size <= _SIDE_BY_SIDE:  # small: one for all layers
        pair = lax.optimization_barrier((tiles.x[tiles.starts], tiles.y[tiles.starts]))
        return jax.vmap(of_tile, in_axes=(0, 0, 0, None))(*pair, jnp.arange(layers), True)
    place = np.arange(len(tiles.owner)) - tiles.starts[tiles.owner]
    middle = place == (tiles.counts[tiles.owner] - 1) // 2
    table = np.stack([tiles.owner, middle, place % tiles.inner, place], axis=1).astype(np.uint32)

    def join(one: Any, other: Any) -> Any:
        *sums, last = jax.tree.map(jnp.add, one, other)
        if maxima:
            largest = np.arange(len(last)) >= len(last) - maxima
            last = jnp.where(largest, jnp.maximum(one[-1], other[-1]), last)
        return *sums, last

    # One loop over all tiles, which adds some up before they join the rest: few roundings.
    def step(i: jax.Array, state: _State) -> _State:
        owner, middle, of_part, place = lax.dynamic_index_in_dim(table, i, 0, keepdims=False)
        pair = lax.optimization_barrier(tiles.tile(i, owner, place))
        new = of_tile(*pair, owner, middle == 1)
        choose = lambda flag, *z: jax.tree.map(functools.partial(jnp.where, flag), *z)  # noqa: E731
        total = choose(of_part == 0, join(state.total, state.part), state.total)
        total = jax.tree.map(lambda z: jnp.where(place == 0, 0, z), total)
        part = choose(of_part == 0, new, join(state.part, new))
        put = lambda z, v: lax.dynamic_update_index_in_dim(z, v, owner, 0)  # noqa: E731
        return _State(part, total, jax.tree.map(put, state.found, join(total, part)))

    one = jax.ShapeDtypeStruct((tiles.x.shape[1], tiles.columns), tiles.dtype)
    found = jax.eval_shape(of_tile, one, one, np.uint32(0), np.bool_(True))
    nothing = jax.tree.map(lambda z: jnp.zeros(z.shape, z.dtype), found)
    all_layers = jax.tree.map(lambda z: jnp.zeros((layers, *z.shape), z.dtype), found)
    # Unsigned: JAX counts negative indices from the end, and asks each for its sign.
    start = _State(nothing, nothing, all_layers)
    return lax.fori_loop(np.uint32(0), np.uint32(len(tiles.owner)), step, start).found


def _cut(block: jax.Array, columns: int) -> jax.Array:
    """Return the tiles of (k, n, d), (k tiles, n, columns)."""
    k, n, d = block.shape
    tiles = math.ceil(d / columns)
    padded = jnp.pad(block, ((0, 0), (0, 0), (0, tiles * columns - d)))
    return padded.reshape(k, n, tiles, columns).swapaxes(1, 2).reshape(-1, n, columns)
