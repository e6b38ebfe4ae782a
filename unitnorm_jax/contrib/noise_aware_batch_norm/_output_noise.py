"""Noise of the read-out of analog layers."""

import jax
import jax.numpy as jnp

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
