"""Augmentation on the device: pure functions of a key and a batch of images."""

import jax
import jax.numpy as jnp


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image, left to right, with probability 1/2.

    Args:
        key: Random key.
        images: ``(n, h, w, c)``.

    Returns:
        The images, ``(n, h, w, c)``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> random_flip(jax.random.key(0), jnp.ones((4, 8, 8, 1))).shape
        (4, 8, 8, 1)
    """
    mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def random_shift(
    key: jax.Array, images: jax.Array, max_shift: int, fill: float | jax.Array = 0.0
) -> jax.Array:
    """Shifts each image by its own random whole number of pixels, up, down, left and right.

    Args:
        key: Random key.
        images: ``(n, h, w, c)``.
        max_shift: Largest shift in each direction, pixels; every shift from ``-max_shift`` to
            ``max_shift`` is equally likely. 0 returns the images as they are.
        fill: Value of the pixels that come in from outside.

    Returns:
        The shifted images, ``(n, h, w, c)``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> random_shift(jax.random.key(0), jnp.ones((4, 8, 8, 1)), max_shift=1).shape
        (4, 8, 8, 1)
    """
    if max_shift == 0:
        return images
    n, h, w, _ = images.shape
    pad = ((0, 0), (max_shift, max_shift), (max_shift, max_shift), (0, 0))
    padded = jnp.pad(images, pad, constant_values=fill)
    offsets = jax.random.randint(key, (n, 2), 0, 2 * max_shift + 1)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (h, w, image.shape[-1]))

    return jax.vmap(crop)(padded, offsets)
