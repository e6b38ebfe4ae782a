"""Augmentation against an oracle that copies pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.augment import random_flip, random_shift


def shifted(image: np.ndarray, down: int, right: int, fill: float) -> np.ndarray:
    """An oracle that copies pixel by pixel."""
    out = np.full_like(image, fill)
    h, w, _ = image.shape
    for i in range(h):
        for j in range(w):
            if 0 <= i - down < h and 0 <= j - right < w:
                out[i, j] = image[i - down, j - right]
    return out


def test_random_shift_makes_every_shift_and_nothing_else():
    image = np.arange(1.0, 31.0, dtype=np.float32).reshape(5, 3, 2)
    images = np.tile(image, (200, 1, 1, 1))
    out = jax.jit(lambda key, x: random_shift(key, x, 1, fill=-7.0))(jax.random.key(0), images)
    allowed = {
        shifted(image, down, right, -7.0).tobytes() for down in (-1, 0, 1) for right in (-1, 0, 1)
    }
    assert {np.asarray(o).tobytes() for o in out} == allowed


def test_no_shift_leaves_the_images():
    images = jnp.arange(32.0).reshape(2, 4, 4, 1)
    np.testing.assert_array_equal(random_shift(jax.random.key(0), images, 0), images)


def test_random_flip_mirrors_half_of_the_images_and_changes_nothing_else():
    image = np.arange(30.0, dtype=np.float32).reshape(5, 3, 2)
    images = np.tile(image, (400, 1, 1, 1))
    out = np.asarray(jax.jit(random_flip)(jax.random.key(0), images))
    mirrored = np.array([np.array_equal(o, image[:, ::-1]) for o in out])
    assert all(np.array_equal(o, image) for o in out[~mirrored])
    # 200 are expected, with a standard deviation of 10.
    assert 150 < mirrored.sum() < 250
    assert set(mirrored[:20]) == {True, False}
