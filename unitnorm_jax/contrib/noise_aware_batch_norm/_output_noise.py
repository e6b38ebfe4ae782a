"""Noise of the read-out of analog layers, also on a model's layers without changing the model."""

import contextlib
import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unitnorm_jax._interception import intercepted
from unitnorm_jax.contrib.noise_aware_batch_norm._weight_noise import check_not_negative
from unitnorm_jax.functional._numerics.arguments import as_floating


def output_noise(key: jax.Array, y: jax.Array, strength: jax.Array | float | int) -> jax.Array:
    """Noise of a layer's read-out: ``y + strength * sqrt(mean y^2) * N(0, 1)``.

    Args:
        key: random key.
        y: the layer's output; the mean is over all of it.
        strength: standard deviation, in units of the root mean square; may be traced.

    Returns:
        The noisy output, of y's shape and dtype; of integers, float32.

    Raises:
        ValueError: ``strength`` is negative.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import output_noise
        >>> noisy = output_noise(jax.random.key(0), jnp.full((1000,), 7.0), 0.1)
        >>> print(f"{jnp.std(noisy):.1f}")
        0.7
    """
    check_not_negative(strength=strength)
    y = as_floating(y)
    # Half precision would overflow in the squares and count badly in the mean.
    wide = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    largest = jnp.max(jnp.abs(wide))
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)  # no square overflows
    rms = unit * jnp.sqrt(jnp.mean(jnp.square(wide / unit)))
    return (wide + strength * rms * jax.random.normal(key, y.shape, wide.dtype)).astype(y.dtype)


def noisy_outputs(
    key: jax.Array,
    strength: jax.Array | float | int,
    *,
    layers: tuple[type[nn.Module], ...] = (nn.Dense, nn.Conv),
) -> contextlib.AbstractContextManager[None]:
    """While it is open, every call of the given layers returns a noisy output.

    ``output_noise`` (y + strength * rms(y) * N(0, 1)), with a key of its own for each
    layer and call; calls are counted anew in each pass (``apply``), so that all passes inside one
    context have the same noise, jitted or not. Under ``nn.scan`` the layers that share a module
    share its noise. A function that is jitted outside the context keeps what it was traced with,
    and so does a module under ``nn.jit``.

    Args:
        key: random key; the same key gives the same noise (a chip with fixed offsets), a new one
            for every forward pass noise that varies in time.
        strength: standard deviation, in units of the output's root mean square; may be traced.
        layers: which layers, by class.

    Returns:
        A context manager.

    Raises:
        ValueError: ``strength`` is negative (when a layer is called).

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import noisy_outputs
        >>> model, x = nn.Dense(1000, use_bias=False), jnp.ones((1, 3))
        >>> variables = model.init(jax.random.key(0), x)
        >>> with noisy_outputs(jax.random.key(1), 0.1):
        ...     noisy = model.apply(variables, x)
        >>> y = model.apply(variables, x)
        >>> print(f"{jnp.std(noisy - y) / jnp.std(y):.1f}")
        0.1
    """
    calls: dict[tuple[str, ...], int] = {}
    # The variables of the pass, which tell it from the next; and how deep in its modules we are.
    root, depth = None, 0

    def add(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        nonlocal root, depth
        module = context.module
        # Deeper down, lifted transforms have variables of their own.
        if depth == 0 and module.scope is not None and module.scope.root is not root:
            root = module.scope.root
            calls.clear()
        depth += 1
        try:
            y = next_fun(*args, **kwargs)
        finally:
            depth -= 1
        if context.method_name != "__call__" or not isinstance(module, layers):
            return y
        call = calls[module.path] = calls.get(module.path, -1) + 1
        # Not hash(): Python salts that of strings, and noise must be reproducible.
        layer = zlib.crc32("/".join(module.path).encode())
        mine = jax.random.fold_in(jax.random.fold_in(key, layer), call)
        return output_noise(mine, y, strength)

    return intercepted(add)
