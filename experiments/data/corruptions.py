"""Corruptions of test images, by name and severity: noise, blur, contrast, brightness, coarseness.

Pure functions on the device, but for JPEG. Names and strengths are those of CIFAR-10-C. They differ
from it: images are those of the run's own data set, random numbers are other ones, and the blur is
Gaussian, which is one of its extra corruptions.
"""

import functools
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)


class Corruption(NamedTuple):
    """A way to spoil images.

    Attributes:
        unit: What the strength is.
        strengths: By severity, from 1.
        matrix: From a number of pixels and the strength to a matrix that acts on rows and columns;
            None if the strength itself is given to ``apply``.
        apply: ``apply(key, image, strength)``: one image ``(h, w, c)``, values from 0 to 1. With
            ``matrix``, the strength is a pair of matrices. None: JPEG, by the host.
    """

    unit: str
    strengths: tuple[float, ...]
    matrix: Callable[[int, float], np.ndarray] | None
    apply: Callable[[jax.Array, jax.Array, Any], jax.Array] | None


def gaussian_noise(key: jax.Array, image: jax.Array, std: Any) -> jax.Array:
    """Add normal numbers."""
    return image + std * jax.random.normal(key, image.shape)


def shot_noise(key: jax.Array, image: jax.Array, photons: Any) -> jax.Array:
    """Count photons: Poisson numbers, white being so many on average."""
    return jax.random.poisson(key, image * photons, image.shape) / photons


def impulse_noise(key: jax.Array, image: jax.Array, share: Any) -> jax.Array:
    """Replace a share of the values, half of them by 0 and half by 1."""
    where = jax.random.uniform(key, image.shape)
    return jnp.where(where < share / 2, 0.0, jnp.where(where < share, 1.0, image))


def contrast(key: jax.Array, image: jax.Array, factor: Any) -> jax.Array:
    """Bring values nearer to the mean of their channel."""
    del key
    mean = image.mean((0, 1), keepdims=True)
    return mean + factor * (image - mean)


def brightness(key: jax.Array, image: jax.Array, shift: Any) -> jax.Array:
    """Raise the value V of hue, saturation and value: the largest of the channels."""
    del key
    value = image.max(-1, keepdims=True)
    brighter = jnp.clip(value + shift, 0, 1)
    return jnp.where(value > 0, image / jnp.where(value > 0, value, 1), 1) * brighter


def linear(key: jax.Array, image: jax.Array, matrices: Any) -> jax.Array:
    """Act on rows and columns."""
    del key
    return jnp.einsum("ai,bj,ijc->abc", *matrices, image, precision="highest")


def blurring(pixels: int, std: float) -> np.ndarray:
    """Return the matrix of a Gaussian blur, (pixels, pixels); outside, the edge goes on.

    Args:
        pixels: Of a row.
        std: Of the Gaussian, pixels; cut at four of it.
    """
    reach = int(4 * std + 0.5)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * np.square(offsets / std))
    matrix = np.zeros((pixels, pixels))
    for offset, weight in zip(offsets, weights / weights.sum(), strict=True):
        rows = np.arange(pixels)
        matrix[rows, np.clip(rows + offset, 0, pixels - 1)] += weight
    return matrix


def pixelating(pixels: int, share: float) -> np.ndarray:
    """Return the matrix that resizes to a share of the pixels and back, by means over boxes."""
    few = max(1, int(pixels * share))
    return _boxes(few, pixels) @ _boxes(pixels, few)


def _boxes(old: int, new: int) -> np.ndarray:
    """Means of the old pixels whose centers are in a new one, or of the nearest, (new, old)."""
    matrix = np.zeros((new, old))
    for row in range(new):
        center, half = (row + 0.5) * old / new, max(old / new, 1) / 2
        first, last = int(center - half + 0.5), int(center + half + 0.5)
        matrix[row, first:last] = 1 / (last - first)
    return matrix


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(
        "standard deviation / white", (0.04, 0.06, 0.08, 0.09, 0.1), None, gaussian_noise
    ),
    "shot_noise": Corruption("photons of white", (500, 250, 100, 75, 50), None, shot_noise),
    "impulse_noise": Corruption(
        "share of values", (0.01, 0.02, 0.03, 0.05, 0.07), None, impulse_noise
    ),
    "gaussian_blur": Corruption(
        "standard deviation, pixels", (0.4, 0.6, 0.7, 0.8, 1), blurring, linear
    ),
    "contrast": Corruption("contrast left", (0.75, 0.5, 0.4, 0.3, 0.15), None, contrast),
    "brightness": Corruption("added / white", (0.05, 0.1, 0.15, 0.2, 0.3), None, brightness),
    "pixelate": Corruption(
        "share of pixels per side", (0.95, 0.9, 0.85, 0.75, 0.65), pixelating, linear
    ),
    "jpeg": Corruption("quality", (80, 65, 58, 50, 40), None, None),
}


def corrupt(
    name: str, severity: int, images: np.ndarray, *, seed: int = 0, first: int = 0
) -> np.ndarray:
    """Return corrupted images; each has random numbers of its own, whatever batch it is in.

    Args:
        name: Key of ``CORRUPTIONS``.
        severity: From 1 to 5.
        images: ``(n, h, w, c)`` float32, from 0, black, to 1, white.
        seed: Of the random numbers.
        first: Number of the first image in its data set.

    Returns:
        ``(n, h, w, c)`` float32, in [0, 1] and rounded to 8 bits.

    Raises:
        ValueError: If there is no such corruption or severity, or JPEG cannot have the channels.

    Example:
        >>> import numpy as np
        >>> gray = np.full((1, 4, 4, 1), 0.5, np.float32)
        >>> round(float(corrupt("brightness", 5, gray).mean()), 2)
        0.8

    References:
        D. Hendrycks, T. Dietterich, Benchmarking neural network robustness to common corruptions
        and perturbations, ICLR 2019 (names and strengths).
    """
    if name not in CORRUPTIONS:
        raise ValueError(
            f"corruption (={name!r}) is unknown; choose from {', '.join(CORRUPTIONS)}."
        )
    if severity not in SEVERITIES:
        raise ValueError(f"`severity` (={severity}) must be one of 1 to 5.")
    corruption = CORRUPTIONS[name]
    strength = corruption.strengths[severity - 1]
    if corruption.apply is None:
        return _jpeg(images, int(strength))
    given: Any = np.float32(strength)
    if corruption.matrix is not None:
        given = tuple(
            corruption.matrix(pixels, strength).astype(np.float32) for pixels in images.shape[1:3]
        )
    number = list(CORRUPTIONS).index(name) * len(SEVERITIES) + severity
    key = jax.random.fold_in(jax.random.key(seed), number)
    return np.asarray(_program(name)(key, np.arange(first, first + len(images)), images, given))


@functools.cache
def _program(name: str) -> Any:
    """One program for all severities."""
    apply = CORRUPTIONS[name].apply
    assert apply is not None

    def run(key: jax.Array, numbers: Any, images: Any, strength: Any) -> jax.Array:
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
        found = jax.vmap(apply, in_axes=(0, 0, None))(keys, images, strength)
        return jnp.round(255 * jnp.clip(found, 0, 1)) / 255

    return jax.jit(run)


def _jpeg(images: np.ndarray, quality: int) -> np.ndarray:
    from PIL import Image

    if images.shape[-1] not in (1, 3):
        raise ValueError(
            f"corruption (='jpeg') is for images of 1 or 3 channels, not of {images.shape[-1]}."
        )
    pixels = np.round(255 * images).astype(np.uint8)
    found = np.empty_like(pixels)
    for i, image in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
            file, "JPEG", quality=quality
        )
        found[i] = np.asarray(Image.open(file)).reshape(image.shape)
    return found.astype(np.float32) / np.float32(255)
