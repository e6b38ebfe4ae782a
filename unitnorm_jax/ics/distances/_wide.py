"""Numbers of dtypes that JAX would narrow, such as numpy's float64: centred on the host."""

from typing import Any

import jax
import numpy as np

Pair = tuple[np.ndarray, np.ndarray]  # float64, whose sum is the number, exactly


def narrow(
    arrays: tuple[Any, ...], *, centre: bool, used: Any = None
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the arrays in dtypes that JAX keeps, and how far each row moved.

    With ``jax_enable_x64`` off JAX makes float32 of float64, and int32 of int64, without a word:
    1e8 and 1e8 + 1 become one number. Where the numbers are representable in the narrow dtype,
    they are cast and nothing is lost. Else they are centred here, less the first row of the first
    array in float64 (distances do not change), and then cast; what the cast still moves is
    returned.

    Args:
        arrays: Checked samples, (n, ...) each, of the same trailing shape.
        centre: Whether a common offset may be taken off.
        used: For each array a mask of the rows that count (n,), or None if all do.

    Returns:
        The arrays; and for each the distances (n,) of its rows from those given, or None for 0.

    Raises:
        ValueError: If a number is finite, but not in the narrow dtype.
    """
    arrays = tuple(lossless(x) if is_wide(x) else x for x in arrays)
    errors: list[Any] = [None] * len(arrays)
    lossy = [i for i, x in enumerate(arrays) if is_wide(x)]
    if not lossy:
        return arrays, tuple(errors)
    used = [None] * len(arrays) if used is None else used
    centre = centre and all(_is_here(x) for x in arrays)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if centre:
            pairs = [_pair(np.asarray(x).reshape(len(x), -1)) for x in arrays]
            origin = _origin(pairs[0], used[0])
            moved = [_cast(_minus(pair, origin)) for pair in pairs]
            fits = [_fits(p, m[0], u) for p, m, u in zip(pairs, moved, used, strict=True)]
            if all(fits):
                shaped = (m[0].reshape(x.shape) for x, m in zip(arrays, moved, strict=True))
                return tuple(shaped), tuple(m[1] for m in moved)
        result = list(arrays)
        for i in lossy:
            x = np.asarray(arrays[i])
            pair = _pair(x.reshape(len(x), -1))
            cast, errors[i] = _cast(_minus(pair, (np.zeros(1), np.zeros(1))))
            if not _fits(pair, cast, used[i]):
                raise ValueError(_range_message(x))
            result[i] = cast.reshape(x.shape)
    return tuple(result), tuple(errors)


def is_wide(x: Any) -> bool:
    """Return whether JAX would narrow the dtype of these numbers."""
    if isinstance(x, jax.core.Tracer):
        return False
    return jax.dtypes.canonicalize_dtype(x.dtype) != x.dtype


def _is_here(x: Any) -> bool:
    """Return whether the numbers are there to be taken off: not traced, not on another host."""
    return not isinstance(x, jax.core.Tracer) and getattr(x, "is_fully_addressable", True)


def lossless(x: Any) -> Any:
    """Return x in the narrow dtype if that has all of its numbers, else x on the host."""
    x = np.asarray(x)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        cast = x.astype(jax.dtypes.canonicalize_dtype(x.dtype))
        back = cast.astype(x.dtype)
    return cast if np.array_equal(back, x, equal_nan=x.dtype.kind == "f") else x


def _pair(x: np.ndarray) -> Pair:
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        return (x >> 32).astype(np.float64) * 2.0**32, (x & 0xFFFFFFFF).astype(np.float64)
    return x.astype(np.float64), np.zeros((1, 1))


def _origin(pair: Pair, used: Any) -> Pair:
    """Return the first row that counts and is finite: distances do not depend on it."""
    rows = np.isfinite(pair[0]).all(axis=1)
    first = np.argmax(rows if used is None else rows & used)
    return pair[0][first], pair[1][first if len(pair[1]) > 1 else 0]


def _minus(pair: Pair, origin: Pair) -> Pair:
    """Return the difference, as a rounded number and the rest of it."""
    high, rest_high = _two_sum(pair[0], -origin[0])
    total, rest = _two_sum(high, pair[1] - origin[1])  # those of integers are exact
    return total, rest + rest_high  # one of them is 0 where both have the same dtype


def _two_sum(a: np.ndarray, b: np.ndarray) -> Pair:
    """Return the rounded sum and its exact error (Knuth)."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def _cast(pair: Pair) -> Pair:
    """Rows in float32, and the distance of each from the pair, rounded up."""
    cast = pair[0].astype(np.float32)
    off = np.abs((pair[0] - cast) + pair[1])
    off = np.where(np.isfinite(cast), off, 0)  # such rows make the result NaN
    largest = off.max(axis=1)
    unit = np.where(largest > 0, largest, 1)[:, None]
    norm = (
        largest * np.sqrt(np.sum(np.square(off / unit), axis=1)) * (1 + 1e-9 * off.shape[1] ** 0.5)
    )
    tiny = np.finfo(np.float32).tiny
    up = np.nextafter(norm.astype(np.float32), np.float32(np.inf))
    return cast, np.where(norm > 0, np.maximum(up, tiny), np.float32(0)).astype(np.float32)


def _fits(pair: Pair, cast: np.ndarray, used: Any) -> bool:
    lost = np.isfinite(pair[0]) & ~np.isfinite(cast)
    rows = lost.any(axis=1)
    return not (rows if used is None else rows & used).any()


def _range_message(x: np.ndarray) -> str:
    largest = float(np.max(np.abs(np.where(np.isfinite(x), x, 0).astype(np.float64))))
    return (
        f"A {x.dtype} sample holds numbers of size {largest:.4g}, beyond float32 (up to 3.4e38), "
        "in which JAX computes; divide all samples by a common factor, or enable 64 bits: "
        "`jax.config.update('jax_enable_x64', True)`."
    )
