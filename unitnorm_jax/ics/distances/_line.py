"""The 1-Wasserstein distance on the line: sort and subtract."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from unitnorm_jax.ics.distances import _rounding

_LEAST_COLUMNS = 16  # to sort them by a network
_UNROLLED = 32  # samples up to which the network is written out: 64 take seconds to compile
_BLOCKS = 4  # of columns, for such a network


def line_em_distance(x: Float[Array, "n ..."], y: Float[Array, "m ..."]) -> Float[Array, "*k"]:
    """W1 of every column of x from the same column of y, exactly, by quantiles.

    ``W1 = integral_0^1 |F^-1(t) - G^-1(t)| dt``: sort both, and cut [0, 1] at the multiples of
    1/n and 1/m, between which both quantile functions are constant. For n = m the mean of
    ``|x_(i) - y_(i)|``.

    Args:
        x: Samples, sorted along axis 0.
        y: Samples, likewise; n and m may differ.

    Returns:
        Distances (*k); relative error at most `line_error`.

    References:
        S. Vallender, Calculation of the Wasserstein distance between probability distributions
        on the line, 1974.
    """
    n, m = x.shape[0], y.shape[0]
    if n == m and n <= _UNROLLED and x[0].size >= _LEAST_COLUMNS:
        return _few_samples(x.reshape(n, -1), y.reshape(n, -1)).reshape(x.shape[1:])
    if n == m:  # One loop for both.
        x, y = jnp.moveaxis(sorted_columns(jnp.stack([x, y], axis=1)), 1, 0)
        return _rounding.tree_sum(jnp.abs(x - y)) / n
    x, y = sorted_columns(x), sorted_columns(y)
    # In units of 1/(n m) the cuts are integers, so the intervals are exact.
    cuts = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    start, width = cuts[:-1], np.diff(cuts) / (n * m)
    gaps = jnp.abs(x[start // m] - y[start // n])
    weights = jnp.asarray(width, gaps.dtype).reshape(-1, *(1,) * (gaps.ndim - 1))
    return _rounding.tree_sum(weights * gaps)


def sorted_columns(x: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    """Return x sorted along axis 0; a NaN may spread to the other numbers of its column.

    Where there are many columns, by a bitonic network: the same comparisons for all of them, in
    log2(n) (log2(n) + 1) / 2 passes over x. `jnp.sort` compares one by one on a CPU, and took 20
    times longer (n = 32, d = 1024; 8 times at n = 256).

    Args:
        x: Numbers, (n, ...).

    References:
        K. Batcher, Sorting networks and their applications, 1968.
    """
    n = x.shape[0]
    if x[0].size < _LEAST_COLUMNS:
        return jnp.sort(x, axis=0)
    size, partners = _network(n)
    if not partners:
        return x
    index = np.arange(size)

    def compare(x, stage):
        partner, first = stage
        other = x[partner]
        first = first.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(first, jnp.minimum(x, other), jnp.maximum(x, other)), None

    x = jnp.pad(x, [(0, size - n), *[(0, 0)] * (x.ndim - 1)], constant_values=jnp.inf)
    stages = jnp.asarray(partners), jnp.asarray(index < np.stack(partners))
    return lax.scan(compare, x, stages)[0][:n]


def _network(n: int) -> tuple[int, list[np.ndarray]]:
    """Place, the power of two from n, and for each pass the place each is compared with."""
    size = 1 << (n - 1).bit_length()
    partners, index = [], np.arange(size)
    for log_block in range(1, size.bit_length()):
        # Both halves of a block are sorted: compare first with last, and so on inwards, ...
        partners.append(index ^ (2**log_block - 1))
        # ... then the bitonic halves, their halves, ...
        partners.extend(index ^ 2**k for k in reversed(range(log_block - 1)))
    return size, partners


def _few_samples(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the distances of (n, k), with nothing stored between the comparisons and the sum."""
    n, k = x.shape
    width = -(-k // _BLOCKS)

    def block(start):
        rows = (_sorted_rows(lax.dynamic_slice_in_dim(z, start, width, axis=1)) for z in (x, y))
        return _rounding.tree_sum_of(jnp.abs(p - q) for p, q in zip(*rows, strict=True)) / n

    # A loop keeps what uses the distances, a sum of them all, out of the compiled network, which
    # would then run number by number: four times slower. The last block may overlap.
    start = np.minimum(np.arange(_BLOCKS) * width, k - width)
    blocks = lax.map(block, jnp.asarray(start))
    return jnp.concatenate([blocks[:-1].reshape(-1), blocks[-1, _BLOCKS * width - k :]])


def _sorted_rows(x: jax.Array) -> list[jax.Array]:
    """Return the rows of `sorted_columns`, by the same network written out: one expression."""
    size, partners = _network(x.shape[0])
    rows = [*x, *[jnp.full_like(x[0], jnp.inf)] * (size - x.shape[0])]
    for partner in partners:
        rows = [
            (jnp.minimum if i < j else jnp.maximum)(rows[i], rows[j]) for i, j in enumerate(partner)
        ]
    return rows[: x.shape[0]]


def line_error(n: int, m: int, dtype: DTypeLike) -> float:
    """Relative error bound of `line_em_distance`: one rounding per level of the sum, and 4."""
    return 1.02 * (_rounding.tree_depth(n + m) + 4) * _rounding.unit_roundoff(dtype)
