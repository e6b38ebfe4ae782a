"""Corruptions of images, each against numpy, scipy or Pillow in float64."""

import colorsys
import io

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats

from experiments.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt

RNG = np.random.default_rng(0)
# Of 8 bits, so that rounding is the same in all; black and white pixels, too.
IMAGES = (RNG.integers(0, 256, (3, 9, 11, 3)) / 255).astype(np.float32)
IMAGES[0, 0, 0], IMAGES[0, 0, 1] = 0, 1
HALF_A_BIT = 0.5 / 255 + 1e-6


def strength(name, severity):
    return CORRUPTIONS[name].strengths[severity - 1]


def draws(name, severity, sample):
    """The random numbers of each image, from the key that the documentation promises."""
    number = list(CORRUPTIONS).index(name) * 5 + severity
    key = jax.random.fold_in(jax.random.key(7), number)
    return np.stack(
        [sample(jax.random.fold_in(key, i), IMAGES.shape[1:]) for i in range(len(IMAGES))]
    ).astype(np.float64)


def gaussian_noise(x, severity):
    noise = draws("gaussian_noise", severity, jax.random.normal)
    return x + strength("gaussian_noise", severity) * noise


def impulse_noise(x, severity):
    where, share = (
        draws("impulse_noise", severity, jax.random.uniform),
        strength("impulse_noise", severity),
    )
    return np.select([where < share / 2, where < share], [0.0, 1.0], x)


def gaussian_blur(x, severity):
    std = strength("gaussian_blur", severity)
    return ndimage.gaussian_filter(x, (0, std, std, 0), mode="nearest", truncate=4)


def contrast(x, severity):
    mean = x.mean((1, 2), keepdims=True)
    return (x - mean) * strength("contrast", severity) + mean


def brightness(x, severity):
    def pixel(rgb):
        h, s, v = colorsys.rgb_to_hsv(*rgb)
        return colorsys.hsv_to_rgb(h, s, min(v + strength("brightness", severity), 1))

    return np.apply_along_axis(pixel, -1, x)


def pixelate(x, severity):
    share, (h, w) = strength("pixelate", severity), x.shape[1:3]

    def channel(plane):  # mode F: 32-bit floats
        small = Image.fromarray(plane.astype(np.float32)).resize(
            (int(w * share), int(h * share)), Image.Resampling.BOX
        )
        return np.asarray(small.resize((w, h), Image.Resampling.BOX))

    planes = [[channel(image[..., c]) for c in range(3)] for image in x]
    return np.moveaxis(np.array(planes, np.float64), 1, -1)


def jpeg(x, severity):
    def image(values):
        file = io.BytesIO()
        pixels = Image.fromarray(np.round(values * 255).astype(np.uint8))
        pixels.save(file, "JPEG", quality=strength("jpeg", severity))
        return np.asarray(Image.open(file)) / 255

    return np.stack([image(values) for values in x])


ORACLES = (gaussian_noise, impulse_noise, gaussian_blur, contrast, brightness, pixelate, jpeg)


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda f: f.__name__)
def test_restated_in_float64(oracle):
    name = oracle.__name__
    for severity in SEVERITIES:
        found = corrupt(name, severity, IMAGES, seed=7)
        expected = np.clip(oracle(IMAGES.astype(np.float64), severity), 0, 1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=HALF_A_BIT)
        np.testing.assert_allclose(found, np.round(255 * found) / 255, rtol=0, atol=1e-7)


def test_shot_noise_is_poisson():
    """At every gray, by a chi-squared test of the counts against scipy's distribution."""
    photons = strength("shot_noise", 5)
    for i, gray in enumerate((0.1, 0.3, 0.6)):
        images = np.full((4, 50, 50, 1), gray, np.float32)
        found = corrupt("shot_noise", 5, images, seed=i)
        counts = np.round(found.ravel().astype(np.float64) * photons)  # 5.1 bits of 8 each
        edges = np.unique(stats.poisson.ppf(np.linspace(0.02, 0.98, 12), gray * photons))
        cells = np.concatenate([[0], stats.poisson.cdf(edges, gray * photons), [1]])
        seen = np.histogram(counts, np.concatenate([[-np.inf], edges + 0.5, [np.inf]]))[0]
        assert stats.chisquare(seen, np.diff(cells) * counts.size).pvalue > 1e-3
    assert (corrupt("shot_noise", 3, np.zeros((1, 4, 4, 1), np.float32)) == 0).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_numbers_are_of_the_image_and_grow_with_severity(name):
    whole = corrupt(name, 3, IMAGES, seed=1)
    np.testing.assert_array_equal(whole, corrupt(name, 3, IMAGES, seed=1))
    np.testing.assert_array_equal(whole[1:], corrupt(name, 3, IMAGES[1:], seed=1, first=1))
    if name.endswith("noise"):
        assert (whole != corrupt(name, 3, IMAGES, seed=2)).any()
        assert (
            corrupt(name, 3, IMAGES[:1], seed=1) != corrupt(name, 3, IMAGES[:1], seed=1, first=1)
        ).any()
    smooth = ndimage.zoom(IMAGES, (1, 3, 3, 1), order=1).clip(0, 1)
    mild, strong = (
        np.square(corrupt(name, severity, smooth, seed=1) - smooth).mean() for severity in (1, 5)
    )
    assert 0 < mild < strong
    assert whole.dtype == np.float32
    assert whole.shape == IMAGES.shape


def test_gray_images():
    for name in CORRUPTIONS:
        assert corrupt(name, 2, IMAGES[..., :1]).shape == (3, 9, 11, 1)


def test_errors():
    with pytest.raises(ValueError, match=r"corruption \(='snow'\) is unknown; choose from gauss"):
        corrupt("snow", 1, IMAGES)
    with pytest.raises(ValueError, match=r"`severity` \(=6\) must be one of 1 to 5"):
        corrupt("jpeg", 6, IMAGES)
    with pytest.raises(ValueError, match=r"1 or 3 channels, not of 2"):
        corrupt("jpeg", 1, IMAGES[..., :2])
