"""Calls of numpy and scipy from compiled functions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

try:
    from jax.experimental.buffer_callback import buffer_callback
except ImportError:  # It is experimental; `jax.pure_callback` does the same, more slowly.
    buffer_callback = None  # type: ignore[assignment]


def call_on_host(function: Callable[..., Any], result: Any, *arrays: jax.Array) -> Any:
    """Run `function` on the host, one call per element under `jax.vmap`.

    On a CPU the numpy arrays are the buffers of the compiled function themselves
    (`buffer_callback`), which `jax.pure_callback` would copy. Elsewhere they are copies.

    Args:
        function: Takes numpy arrays, which it must not change; returns numpy arrays of the shapes
            and dtypes of `result`.
        result: `jax.ShapeDtypeStruct`, or a pytree of them.
        *arrays: The arguments.
    """

    def in_place(*arrays: jax.Array) -> Any:
        return buffer_callback(fill, result, vmap_method="sequential")(*arrays)

    def fill(_: Any, out: Any, *given: Any) -> None:
        back = function(*map(np.asarray, given))
        jax.tree.map(lambda to, x: np.copyto(np.asarray(to), x, casting="no"), out, back)

    def by_copy(*arrays: jax.Array) -> Any:
        return _call_with_copies(function, result, *arrays)

    if buffer_callback is None:
        return by_copy(*arrays)
    return lax.platform_dependent(*arrays, cpu=in_place, default=by_copy)


def _call_with_copies(function: Callable[..., Any], result: Any, *arrays: jax.Array) -> Any:
    """`jax.pure_callback`, with float64 handed over whole.

    JAX converts arguments and results on a thread of its own, which does not know of
    ``jax.enable_x64(True)`` around the call and would make float32 of float64. So they go as pairs
    of integers.
    """

    def whole(*given: Any) -> Any:
        back = function(*(_joined(np.asarray(x), a) for x, a in zip(given, arrays, strict=True)))
        return jax.tree.map(_split, back)

    handed = [lax.bitcast_convert_type(a, jnp.uint32) if _wide(a) else a for a in arrays]
    like = jax.tree.map(
        lambda r: jax.ShapeDtypeStruct((*r.shape, 2), jnp.uint32) if _wide(r) else r, result
    )
    back = jax.pure_callback(whole, like, *handed, vmap_method="sequential")
    return jax.tree.map(
        lambda x, r: lax.bitcast_convert_type(x, r.dtype) if _wide(r) else x, back, result
    )


def _wide(array: Any) -> bool:
    return array.dtype == np.float64


def _joined(x: np.ndarray, like: Any) -> np.ndarray:
    return np.ascontiguousarray(x).view(np.float64)[..., 0] if _wide(like) else x


def _split(x: Any) -> np.ndarray:
    x = np.asarray(x, order="C")
    return x[..., None].view(np.uint32) if _wide(x) else x
