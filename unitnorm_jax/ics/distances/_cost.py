"""The Euclidean cost matrix by direct differences, in bounded memory, with its error."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from unitnorm_jax.ics.distances import _rounding

_GROUP = 16  # columns per pass over a block; 8, 12, 32 measured 2-5 times slower (CPU, AVX-512)
_BLOCK = 2**18  # numbers in the accumulator of one block of rows
_FEW_PAIRS = 2**14  # up to here several columns at once pay: 8, and more for fewer pairs


class CostError(NamedTuple):
    """``|computed - true| <= relative * computed + absolute``, the latter for scaled inputs."""

    relative: float
    absolute: float


class _Plan(NamedTuple):
    group: int  # columns per step
    levels: tuple[int, ...]  # steps, as nested loops: the sums stay short
    lanes: int  # separate sums along the columns
    rows: int  # rows of x per block


def _plan(n: int, m: int, d: int) -> _Plan:
    lanes = 1
    if n * m <= _FEW_PAIRS:
        lanes = 2 ** int(math.log2(max(1, min(max(8, 2**13 // (n * m)), d // _GROUP))))
    columns = -(-d // lanes)
    group = columns if columns <= _GROUP // 2 else _GROUP
    levels = _rounding.loop_levels(-(-columns // group))
    blocks = -(-n // max(1, _BLOCK // (m * lanes)))
    return _Plan(group, levels, lanes, -(-n // blocks))


def cost_error(
    n: int, m: int, d: int, dtype: DTypeLike, *, more: int = 0, total: int | None = None
) -> CostError:
    """Return the a-priori error of `cost_matrix`, as static numbers.

    With u the unit roundoff, a squared difference carries 3 roundings and its way through the
    sums h more (h = tree depth of a group + length of each nested loop + tree depth of the
    lanes), all terms being nonnegative: relative error (3 + h) u of the square, half of that
    after the square root, for which 4 u are allowed (an accelerator's square root may be 2 ulp
    off). Underflow moves each square by at most the smallest normal number t, the distance by
    sqrt(d t).

    Args:
        n: Rows of x.
        m: Rows of y.
        d: Columns of both.
        dtype: Dtype of the computation.
        more: Roundings of further sums, where `squared_costs` of parts are added up.
        total: Columns of all parts.
    """
    group, levels, lanes, _ = _plan(n, m, d)
    u = _rounding.unit_roundoff(dtype)
    height = _rounding.tree_depth(group) + sum(levels) + _rounding.tree_depth(lanes) + more
    tiny = float(jnp.finfo(dtype).tiny)
    return CostError(1.02 * ((3 + height) / 2 + 4) * u, 4 * math.sqrt((total or d) * tiny))


def cost_matrix(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Euclidean distance of every row of x to every row of y.

    ``C_ij = sqrt( sum_k (x_ik - y_jk)^2 )`` from the differences themselves. The Gram form
    |x|^2 + |y|^2 - 2 x.y loses the small distances, which are the ones that matter here.

    No (n, m, d) array is formed: blocks of rows, groups of 16 columns, both in loops; where
    there are few pairs, many columns at once. Works within 2^18 numbers beside the inputs (each
    copied once, transposed) and the result.

    Args:
        x: Points, scaled so that no square overflows (`_rounding.times_power_of_two`).
        y: Points, the same dtype.

    Returns:
        Distances, within `cost_error` of the true ones.

    Example:
        >>> import jax.numpy as jnp
        >>> cost_matrix(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0], [0.0, 1.0]]))
        Array([[5., 1.]], dtype=float32)

    References:
        N. Higham, Accuracy and Stability of Numerical Algorithms, 2002, chapter 4 (the error).
    """
    return jnp.sqrt(squared_costs(x, y))


def squared_costs(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Return the squares of `cost_matrix`.

    Args:
        x: As there.
        y: As there.
    """
    (n, d), m = x.shape, y.shape[0]
    group, levels, lanes, rows = _plan(n, m, d)
    steps = math.prod(levels)
    blocks = -(-n // rows)

    def columns_first(points):  # (p, d) -> (steps, group, p, lanes)
        points = jnp.pad(points, ((0, 0), (0, steps * group * lanes - d)))
        return points.reshape(-1, steps, group, lanes).transpose(1, 2, 0, 3)

    columns_y = columns_first(y)

    def block(rows_x):  # (rows, d) -> (rows, m)
        columns_x = columns_first(rows_x)

        def step(k):
            a = lax.dynamic_index_in_dim(columns_x, k, keepdims=False)  # (group, rows, lanes)
            b = lax.dynamic_index_in_dim(columns_y, k, keepdims=False)  # (group, m, lanes)
            return _rounding.tree_sum_of(
                [jnp.square(a[c, :, None] - b[c, None]) for c in range(group)]
            )

        zeros = jnp.zeros_like(rows_x, shape=(rows_x.shape[0], m, lanes))
        squares = _rounding.nested_sum(step, levels, zeros)  # (rows, m, lanes)
        return _rounding.tree_sum(jnp.moveaxis(squares, 2, 0))

    if blocks == 1:
        return block(x)
    padded = jnp.pad(x, ((0, blocks * rows - n), (0, 0)))
    return lax.map(block, padded.reshape(blocks, rows, d)).reshape(-1, m)[:n]
