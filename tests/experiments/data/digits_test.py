"""The digits that scikit-learn carries."""

import jax
import numpy as np
import pytest

from experiments.config.data import DataConfig
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
        ValueError,
        match=r"`dataset` \(='svhn'\) is unknown; choose from digits, mnist5k, mnist",
    ):
        load_dataset("svhn")


def test_augmentation_is_as_configured():
    """Images come standardized; by default they are shifted by a pixel, black, and not flipped."""
    dataset = load_dataset("digits")
    images, key = dataset.train_images[:50], jax.random.key(3)
    expected = random_shift(key, images, 1, dataset.background)
    np.testing.assert_array_equal(dataset.augment(key, images), expected)
    np.testing.assert_array_equal(dataset.standardize(images), images)
    plain = load_dataset(DataConfig(max_shift=0))
    np.testing.assert_array_equal(plain.augment(key, images), images)
    assert load_dataset(DataConfig(flip=True)).record()["flip"]


def test_scaling_that_is_not_possible():
    with pytest.raises(ValueError, match=r"`scaling` \(='pixel-variance'\) is not possible for di"):
        load_dataset(DataConfig(scaling="pixel-variance"))
