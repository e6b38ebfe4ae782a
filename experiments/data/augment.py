"""Augmentation on the device: pure functions of a key and a batch of images, or a part of one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Part(NamedTuple):
    """Which part of a batch some images are: how the batch is split changes no random number.

    Attributes:
        number: Of the part, from 0; may be traced.
        parts: How many there are, all of the same size.
    """

    number: Any = 0
    parts: int = 1


WHOLE = Part()


def random_flip(key: jax.Array, images: jax.Array, part: Part = WHOLE) -> jax.Array:
    """Mirror each image, left to right, with probability 1/2.

    Args:
        key: Random key of the batch.
        images: ``(n, h, w, c)``.
        part: Which part of the batch they are.

    Returns:
        The images, ``(n, h, w, c)``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> random_flip(jax.random.key(0), jnp.ones((4, 8, 8, 1))).shape
        (4, 8, 8, 1)
    """
    mirrored = _draw(lambda n: jax.random.bernoulli(key, shape=(n, 1, 1, 1)), len(images), part)
    return jnp.where(mirrored, images[:, :, ::-1], images)


def random_shift(
    key: jax.Array,
    images: jax.Array,
    max_shift: int,
    fill: float | jax.Array = 0.0,
    part: Part = WHOLE,
) -> jax.Array:
    """Shift each image by its own random whole number of pixels, up, down, left and right.

    Args:
        key: Random key of the batch.
        images: ``(n, h, w, c)``.
        max_shift: Largest shift in each direction, pixels; every shift from ``-max_shift`` to
            ``max_shift`` is equally likely. 0 returns the images as they are.
        fill: Value of the pixels that come in from outside.
        part: Which part of the batch the images are.

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
    offsets = _draw(lambda n: jax.random.randint(key, (n, 2), 0, 2 * max_shift + 1), n, part)

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (h, w, image.shape[-1]))

    return jax.vmap(crop)(padded, offsets)


def _draw(draw: Callable[[int], jax.Array], images: int, part: Part) -> jax.Array:
    """Draw for the whole batch, and return what belongs to the images of ``part``."""
    whole = draw(images * part.parts)
    if part.parts == 1:
        return whole
    return jax.lax.dynamic_slice_in_dim(whole, part.number * images, images)
