"""Scaling against numpy in float64."""

import numpy as np
import pytest

from experiments.data import ArrayDataset
from experiments.data.scaling import IMAGENET, make_scaling, pixel_moments

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (1500, 4, 5, 3), dtype=np.uint8)  # More than one chunk.


def dataset(kind):
    scaling = make_scaling(kind, *pixel_moments(IMAGES), "these")
    labels = np.zeros(len(IMAGES), np.int32)
    return ArrayDataset(
        name="these",
        num_classes=1,
        scaling=scaling,
        train_images=IMAGES,
        train_labels=labels,
        test_images=IMAGES,
        test_labels=labels,
    )


def test_moments_are_exact():
    x = IMAGES.astype(np.float64)
    mean, var = pixel_moments(IMAGES)
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(var, x.var(axis=0), rtol=1e-13)


def test_moments_of_nearly_constant_pixels():
    """The difference of the squares cancels to the last digit; exact integers do not mind."""
    images = np.full((100_001, 1, 1, 1), 255, np.uint8)
    images[0] = 254
    p = 1 / 100_001
    np.testing.assert_allclose(pixel_moments(images)[1].item(), p * (1 - p), rtol=1e-14)


def test_channel_std_is_the_customary_scaling():
    x = IMAGES.astype(np.float64)
    expected = (x - x.mean(axis=(0, 1, 2))) / x.std(axis=(0, 1, 2))
    np.testing.assert_allclose(dataset("channel-std").standardize(IMAGES), expected, atol=1e-6)


def test_pixel_variance_is_the_authors_scaling():
    """(x - mean) / variance, of each pixel and channel, on 0-255."""
    x = IMAGES.astype(np.float64)
    expected = (x - x.mean(axis=0)) / x.var(axis=0)
    np.testing.assert_allclose(
        dataset("pixel-variance").standardize(IMAGES), expected, rtol=1e-5, atol=1e-8
    )


def test_imagenet_scaling_is_that_of_values_from_0_to_1():
    x = IMAGES.astype(np.float64) / 255
    expected = (x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    found = (IMAGES.astype(np.float32) - IMAGENET.mean) / IMAGENET.divisor
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_divisors_of_zero():
    images = IMAGES.copy()
    images[:, 0, :2] = 7
    message = r"`scaling` \(='pixel-variance'\) is not possible for these: 6 of 60 pixels are the"
    with pytest.raises(ValueError, match=message + ".* Use --data.scaling channel-std"):
        make_scaling("pixel-variance", *pixel_moments(images), "these")
    images[..., 1] = 9
    with pytest.raises(ValueError, match=r"not possible for these: 1 of 3 channels are the same"):
        make_scaling("channel-std", *pixel_moments(images), "these")


def test_unknown_scaling():
    with pytest.raises(ValueError, match=r"`scaling` \(='std'\) must be one of channel-std, pixel"):
        make_scaling("std", *pixel_moments(IMAGES), "these")
