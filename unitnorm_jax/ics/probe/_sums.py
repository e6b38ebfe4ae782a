"""What the distances and bounds of layers are made of: sums over the numbers of samples."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.ics.bounds import _lower
from unitnorm_jax.ics.distances import _cost, _rounding, _samples
from unitnorm_jax.ics.distances._cascade import EMDistance
from unitnorm_jax.ics.distances._line import line_em_distance
from unitnorm_jax.ics.probe._tiles import Facts, Tiles, over_tiles

ROWS = ("x", "y", "apart", "x_centred", "y_centred", "x_radius", "y_radius", "product")
"""|x_i|^2, |y_i|^2, |x_i - y_i|^2, |x_i - E x|^2, |y_i - E y|^2, |x_i - m|^2 and |y_i - m|^2 with m
between the means, (x_i - y_i) . (x_i + y_i)."""
NUMBERS = ("mean_apart", "coordinates", "x_offset", "y_offset", "offset")
"""|E (x - y)|^2, the sum of the squares of W1 of some coordinates, |E x - x_0|^2, |E y - x_0|^2,
|m - x_0|^2."""
MAXIMA = ("coordinate", *(f"moment_{p}" for p in _lower.ORDERS))
"""W1 of a coordinate, and differences of its moments, L3 before rounding."""


class Sums(NamedTuple):
    """What tiles are added up to, of each layer; all of scaled samples."""

    gram: jax.Array
    """(layers, n, n), (x_i - m) . (y_j - m)."""
    rows: jax.Array
    """(layers, 8, n), `ROWS`."""
    numbers: jax.Array
    """(layers, 5), `NUMBERS`."""
    maxima: jax.Array
    """(layers, 4), `MAXIMA`, over some coordinates: those of a layer's middle tile.

    The bounds that they give hold for any coordinates; to sort all took most of a measurement.
    """


def add_up(tiles: Tiles) -> Sums:
    """Return the sums and maxima of each layer, from scaled tiles."""
    n = tiles.x.shape[1]
    ends = list(itertools.accumulate((n * len(ROWS), len(NUMBERS))))
    gram, others = over_tiles(tiles, _of_tile, maxima=len(MAXIMA))
    rows, numbers, maxima = jnp.split(others, ends, axis=1)
    return Sums(gram, rows.reshape(-1, len(ROWS), n), numbers, maxima)


def _of_tile(
    x: jax.Array, y: jax.Array, _: jax.Array, middle: jax.Array | bool
) -> tuple[jax.Array, jax.Array]:
    """Return the products of one tile, and its other sums and its maxima."""
    apart, dx, dy = x - y, x - x[:1], y - x[:1]  # a common offset would swamp the means
    mx, my, mean_apart = _samples.mean(jnp.stack([dx, dy, apart], axis=1))
    point = (mx + my) / 2
    x_centred, y_centred = jnp.square(dx - mx[None, :]), jnp.square(dy - my[None, :])
    dx, dy = dx - point[None, :], dy - point[None, :]

    def coordinates() -> jax.Array:
        moments = _lower.moment_differences(x, y, _lower.ORDERS)
        return jnp.concatenate([line_em_distance(x, y)[None], moments])

    nothing = lambda: jnp.zeros((len(MAXIMA), len(mx)), x.dtype)  # noqa: E731
    some = coordinates() if middle is True else lax.cond(middle, coordinates, nothing)
    rows = {
        "x": jnp.square(x),
        "y": jnp.square(y),
        "apart": jnp.square(apart),
        "x_centred": x_centred,
        "y_centred": y_centred,
        "x_radius": jnp.square(dx),
        "y_radius": jnp.square(dy),
        "product": apart * (x + y),
    }
    numbers = {
        "mean_apart": jnp.square(mean_apart),
        "coordinates": jnp.square(some[0]),
        "x_offset": jnp.square(mx),
        "y_offset": jnp.square(my),
        "offset": jnp.square(point),
    }
    found = [
        _sum_of_rows([rows[name] for name in ROWS]).ravel(),
        _rounding.tree_sum(jnp.stack([numbers[name] for name in NUMBERS], axis=1)),
        jnp.max(some, axis=1),
    ]
    return jnp.matmul(dx, dy.T, precision=lax.Precision.HIGHEST), jnp.concatenate(found)


def nearest_partners(sums: Sums, tiles: Tiles, facts: Facts, tolerance: float | int) -> EMDistance:
    """Return bounds on the distances from the pairs, and from how near other points may be.

    ``mean_i min(|x_i - y_i|, min_(j != i) L_ij) <= W1 <= mean_i |x_i - y_i|``, with L_ij below the
    other distances: the dual potentials are 0 on one side. After a small update each point is the
    nearest of its own partner, and both are the same. L comes from products, which lose the small
    distances but not the large ones:

    ``|x_i - y_j|^2 = A_i + B_j - 2 G_ij``, with A, B the squares of the norms of a_i = x_i - m and
    b_j = y_j - m and G their products. G is a sum of c products in any order, then of `more` parts:
    it is off by (c + more) u |a_i| |b_j|, and A and B by (height + 1) u of themselves (Higham,
    chapter 3). a_i is off by u (2 |a_i| + |m - x_0|), as is b_j. Eight more roundings each are
    allowed (a TPU makes a float32 product of parts). Derived here.

    Args:
        sums: Of scaled samples.
        tiles: These.
        facts: Of the layers.
        tolerance: As in `em_distance`.
    """
    n, dtype = tiles.x.shape[1], tiles.dtype
    u, depth = _rounding.unit_roundoff(dtype), _samples.mean_error(n)
    lost, units = _samples.underflow(max(tiles.dimensions), dtype), tiles.height / 2 + 4.5
    rows = dict(zip(ROWS, jnp.moveaxis(sums.rows, 1, 0), strict=True))
    offset = jnp.sqrt(sums.numbers[:, NUMBERS.index("offset")])[:, None]
    pairs = jnp.sqrt(rows["apart"])
    a, b = rows["x_radius"][:, :, None], rows["y_radius"][:, None, :]
    loose = 1.1 * u * (tiles.columns + tiles.more + tiles.height + 17)
    square = (a + b) * (1 - loose) - 2 * sums.gram
    moved = 1.1 * u * (2 * jnp.sqrt(a) + 2 * jnp.sqrt(b) + 2 * offset[:, :, None])
    others = jnp.sqrt(jnp.maximum(square, 0)) * (1 - 8 * u) - moved - lost
    others = jnp.where(jnp.eye(n, dtype=bool), jnp.inf, others)
    # One array of sums: those of the pairs, and of the bounds on their partners.
    nearest = jnp.maximum(jnp.minimum(pairs, jnp.min(others, axis=2)), 0)
    value, lower = _rounding.tree_sum(jnp.stack([pairs, nearest]), axis=2) / n
    slack = (units + depth + 4) * u
    lower = jnp.maximum(lower * (1 - slack) - lost, 0)
    differ = (value > 0) | ~facts.same
    upper = value * (1 + slack) + jnp.where(differ, lost, 0)
    return EMDistance(value, lower, upper, upper - lower <= tolerance * upper)


def costs_of(tiles: Tiles, wanted: jax.Array) -> tuple[jax.Array, _cost.CostError]:
    """Return the distances of all pairs by direct differences, and their error.

    Args:
        tiles: Scaled.
        wanted: Which layers', (layers,).

    Returns:
        (layers, n, n), 0 for the other layers; the error is that of the largest dimension.
    """
    n, dtype = tiles.x.shape[1], tiles.dtype

    def of_tile(x: jax.Array, y: jax.Array, owner: jax.Array, _: Any) -> tuple[jax.Array]:
        none = jnp.zeros((n, n), dtype)
        return (lax.cond(wanted[owner], lambda: _cost.squared_costs(x, y), lambda: none),)

    (squares,) = over_tiles(tiles, of_tile)
    total = max(tiles.dimensions)
    error = _cost.cost_error(n, n, tiles.columns, dtype, more=tiles.more, total=total)
    return jnp.sqrt(squares), error


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
