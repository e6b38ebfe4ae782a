"""The data and their augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import load_dataset
from experiments.data.augment import random_shift


def test_digits_are_split_by_class_and_standardized():
    dataset = load_dataset("digits")
    assert dataset.train_images.shape == (1437, 8, 8, 1)
    assert dataset.test_images.shape == (360, 8, 8, 1)
    np.testing.assert_allclose(dataset.train_images.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(dataset.train_images.std(), 1, rtol=1e-6)
    # Stratified: 35 to 37 of the 360 test images are of each class.
    counts = np.bincount(dataset.test_labels, minlength=10)
    assert counts.min() >= 35
    assert counts.max() <= 37
    # No image is in both.
    train = {image.tobytes() for image in dataset.train_images}
    assert not any(image.tobytes() in train for image in dataset.test_images)
    np.testing.assert_allclose(dataset.train_images.min(), dataset.background, rtol=1e-6)


def test_split_is_fixed():
    first, second = load_dataset("digits"), load_dataset("digits")
    np.testing.assert_array_equal(first.test_images, second.test_images)
    np.testing.assert_array_equal(first.train_labels, second.train_labels)


def test_unknown_dataset():
    with pytest.raises(
        ValueError, match=r"dataset \(='mnist'\) is unknown; choose from digits, cifar10"
    ):
        load_dataset("mnist")


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
