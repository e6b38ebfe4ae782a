"""Rounding made explicit: sums with a known error, exact scaling, bit-equal rows.

Every bound of this package that is called certified is widened by an a-priori error bound
(Higham, Accuracy and Stability of Numerical Algorithms, chapters 2-4): a sum along a binary
tree of depth h has the error ``h u sum |terms|`` (to first order; the constants used leave room
for the rest), u the unit roundoff. `jnp.sum` leaves the order to the compiler, for which only
``(n - 1) u`` can be promised; hence `tree_sum`, whose order is in the program.
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

_BITS = {4: jnp.uint32, 8: jnp.uint64}  # by bytes


def unit_roundoff(dtype: DTypeLike) -> float:
    """Largest relative error of one rounding to nearest: 2^-24 in float32."""
    return float(jnp.finfo(dtype).eps) / 2


def working_dtype(*arrays: Any) -> jnp.dtype:
    """Return the dtype to compute in: promoted, at least float32; for integers the default."""
    dtypes = [jax.dtypes.canonicalize_dtype(a.dtype) for a in arrays]
    floats = [d for d in dtypes if jnp.issubdtype(d, jnp.floating)]
    if not floats or any(d.itemsize == 8 for d in dtypes):  # int64 is more than float32 holds
        return jnp.result_type(float)
    return jnp.dtype(jnp.float32)


def tree_depth(n: int) -> int:
    """Return how many roundings one term meets in `tree_sum` over n terms."""
    return math.ceil(math.log2(n)) if n > 1 else 0


def tree_sum(x: jax.Array, axis: int = 0) -> jax.Array:
    """Return the sum over an axis along a binary tree; the error is ``tree_depth(n) u sum |x|``."""
    part = functools.partial(lax.slice_in_dim, axis=axis)
    while (n := x.shape[axis]) > 2:
        half = n // 2
        pairs = part(x, 0, half) + part(x, half, 2 * half)
        x = jnp.concatenate([pairs, part(x, n - 1, n)], axis) if n % 2 else pairs
    # A reduction, which XLA writes down: it would add up anew for each reader of a sum.
    return jnp.sum(x, axis)


def tree_sum_of(terms: Iterable[jax.Array]) -> jax.Array:
    """`tree_sum` of arrays that are not stacked."""
    terms = list(terms)
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(pairs) * 2 :]
    return terms[0]


def loop_levels(steps: int) -> tuple[int, ...]:
    """Lengths of nested loops, 16 each or less, whose product is `steps` or just above."""
    depth = next((k for k in (1, 2, 3) if steps <= 16**k), 4)
    inner = math.ceil(steps ** (1 / depth))
    return (-(-steps // inner ** (depth - 1)), *(inner,) * (depth - 1))


def nested_sum(
    step: Callable[[int | jax.Array], jax.Array],
    levels: tuple[int, ...],
    zeros: jax.Array,
    offset: int | jax.Array = 0,
) -> jax.Array:
    """Return the sum of ``step(k)`` for k below the product of `levels`; error ``sum(levels) u``.

    One loop would meet one rounding per step; sums of sums of at most 16 meet few.
    """
    if not levels:
        return step(offset)
    if levels[0] == 1:
        return nested_sum(step, levels[1:], zeros, offset)
    stride = math.prod(levels[1:])

    def add(i, total):
        return total + nested_sum(step, levels[1:], zeros, offset + i * stride)

    return lax.fori_loop(0, levels[0], add, zeros)


def nudge(value: jax.Array, magnitude: jax.Array | float, units: float | int) -> jax.Array:
    """``value + units u magnitude``: units < 0 is safely below, units > 0 safely above.

    Args:
        value: Computed number.
        magnitude: Nonnegative number that scales its error.
        units: The error in roundoffs of `magnitude`; one more for this addition is included.
    """
    u = unit_roundoff(value.dtype)
    sign = math.copysign(1.0, units)
    return value + sign * (abs(units) * u * magnitude + 2 * u * jnp.abs(value))


def target_exponent(size: int, dtype: DTypeLike) -> int:
    """Exponent for the largest entry so that sums of `size` squared differences stay finite."""
    return (jnp.finfo(dtype).maxexp - math.ceil(math.log2(max(size, 1))) - 6) // 2


def scale_exponent(x: jax.Array, y: jax.Array, size: int) -> jax.Array:
    """Return k such that the largest entry of x and y times 2^k is near ``2^target_exponent``.

    Of subnormal numbers alone, too: bits are compared, as in `times_power_of_two`.
    """
    info, kind = jnp.finfo(x.dtype), _BITS[x.dtype.itemsize]
    sizes = [jnp.max(lax.bitcast_convert_type(jnp.abs(z), kind)) for z in (x, y)]
    bits = jnp.maximum(*sizes)
    largest = lax.bitcast_convert_type(bits, x.dtype)
    subnormal = bits >> info.nmant == 0  # or 0
    _, exponent = jnp.frexp(jnp.where(subnormal, bits.astype(x.dtype), largest))
    exponent += jnp.where(subnormal, info.minexp - info.nmant, 0)
    k = target_exponent(size, x.dtype) - exponent
    return jnp.where((bits > 0) & jnp.isfinite(largest), k, 0)


def times_power_of_two(x: jax.Array, k: jax.Array) -> jax.Array:
    """``x 2^k`` without rounding (but for underflow).

    Subnormal x, which arithmetic takes for 0 on most devices, are read as the integers they are.
    """
    info = jnp.finfo(x.dtype)
    bits = lax.bitcast_convert_type(x, _BITS[x.dtype.itemsize])
    digits = bits & (2**info.nmant - 1)
    subnormal = (bits << 1) >> (info.nmant + 1) == 0  # or 0
    whole = jnp.where(bits >> (info.bits - 1) == 1, -1, 1) * digits.astype(x.dtype)
    least = normal_times_power_of_two(whole, k + info.minexp - info.nmant)
    return jnp.where(subnormal, least, normal_times_power_of_two(x, k))


def normal_times_power_of_two(x: jax.Array, k: jax.Array) -> jax.Array:
    """`times_power_of_two` of x that are not subnormal, in two steps so that 2^k stays finite."""
    info = jnp.finfo(x.dtype)

    def power(k):  # 0 below the normal numbers; `jnp.ldexp` is long to compile
        biased = jnp.clip(k + info.maxexp - 1, 0, 2 * info.maxexp - 1)
        bits = biased.astype(_BITS[x.dtype.itemsize]) << info.nmant
        return lax.bitcast_convert_type(bits, x.dtype)

    half = k >> 1  # `//` of integers takes eight operations
    return x * power(half) * power(k - half)


def same_rows(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return whether rows agree bit for bit, subnormals too: (n, d), (n, d) -> (n,)."""
    return ~jnp.any(differ(x, y), axis=1)


def differ(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return whether numbers differ in a bit, subnormals too; zeros of either sign do not."""
    x, y = (lax.bitcast_convert_type(z, _BITS[z.dtype.itemsize]) for z in (x, y))
    return (x != y) & ((x | y) << 1 != 0)
