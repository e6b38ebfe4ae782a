"""Noise of the read-out of analog layers."""

import jax
import jax.numpy as jnp

from unitnorm_jax.functional.weight_noise import check_not_negative


def output_noise(key: jax.Array, y: jax.Array, strength: jax.Array | float | int) -> jax.Array:
    """Noise of a layer's read-out: ``y + strength * sqrt(mean y^2) * N(0, 1)``.

    Args:
      key: random key.
      y: the layer's output; the mean is over all of it.
      strength: standard deviation, in units of the root mean square; may be traced.

    Returns:
      The noisy output, of y's shape and dtype.

    Raises:
      ValueError: ``strength`` is negative.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from unitnorm_jax.functional import output_noise
      >>> noisy = output_noise(jax.random.key(0), jnp.full((1000,), 7.0), 0.1)
      >>> print(f"{jnp.std(noisy):.1f}")
      0.7
    """
    check_not_negative(strength=strength)
    # Half precision would overflow in the squares and count badly in the mean.
    wide = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    rms = jnp.sqrt(jnp.mean(jnp.square(wide)))
    return (wide + strength * rms * jax.random.normal(key, y.shape, wide.dtype)).astype(y.dtype)
