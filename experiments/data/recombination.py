"""Amplitude-phase recombination: images with the phases of one image and the amplitudes of another.

Pure functions on the device, after flips and shifts.
"""

import jax
import jax.numpy as jnp

from experiments.data.augment import WHOLE, Part

PROBABILITY = {"apr-p": 0.6, "apr-s": 0.5}  # the authors'
_AXES = (1, 2, 3)  # theirs, too: channels are an axis of the transform


def recombine(phases: jax.Array, amplitudes: jax.Array) -> jax.Array:
    """Return images with the phase spectra of some and the amplitude spectra of others.

    ``F^-1( |F(amplitudes)| exp(i arg F(phases)) )``, F the discrete Fourier transform of an image
    over height, width and channels. Where a phase is of a zero it is 0.

    Args:
        phases: ``(n, h, w, c)``.
        amplitudes: ``(n, h, w, c)``.

    Returns:
        The images, ``(n, h, w, c)``, of the dtype of ``phases``.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
        >>> bool(jnp.allclose(recombine(x, x), x, atol=1e-6))
        True

    References:
        G. Chen, P. Peng, L. Ma, J. Li, L. Du, Y. Tian, Amplitude-phase recombination: rethinking
        robustness of convolutional neural networks in frequency domain, ICCV 2021.
    """
    spectrum, other = (
        jnp.fft.fftn(x.astype(jnp.float32), axes=_AXES) for x in (phases, amplitudes)
    )
    size = jnp.abs(spectrum)
    phase = jnp.where(size > 0, spectrum / jnp.where(size > 0, size, 1), 1)
    return jnp.fft.ifftn(jnp.abs(other) * phase, axes=_AXES).real.astype(phases.dtype)


def random_pairs(key: jax.Array, images: jax.Array) -> jax.Array:
    """APR-P: with probability 0.6, the batch with the amplitudes of its images in another order.

    Args:
        key: Random key of the batch.
        images: ``(n, h, w, c)``; of a batch in parts, those of a part exchange amplitudes.

    Returns:
        The images, ``(n, h, w, c)``.
    """
    chosen, order = jax.random.split(key)
    others = jax.random.permutation(order, images)
    mixed = recombine(images, others)
    return jnp.where(jax.random.bernoulli(chosen, PROBABILITY["apr-p"]), mixed, images)


def random_distortion(key: jax.Array, images: jax.Array, part: Part = WHOLE) -> jax.Array:
    """Change brightness by up to half a standard deviation, and contrast by up to a half.

    Args:
        key: Random key of the batch.
        images: ``(n, h, w, c)``, standardized.
        part: Which part of the batch they are.

    Returns:
        The images, ``(n, h, w, c)``.
    """
    numbers = _uniform(key, len(images), 2, part) - 0.5
    brightness, contrast = (numbers[:, i, None, None, None] for i in range(2))
    mean = images.mean(_AXES, keepdims=True)
    return mean + (1 + contrast) * (images - mean) + brightness


def random_copies(
    key: jax.Array, images: jax.Array, copies: jax.Array, part: Part = WHOLE
) -> jax.Array:
    """APR-S: with probability 0.5 each, the amplitudes of an image's own other copy.

    Both are distorted at random. (The authors' distortions are those of AugMix.)

    Args:
        key: Random key of the batch.
        images: ``(n, h, w, c)``: whose phases are used.
        copies: The same images, flipped and shifted by other random numbers.
        part: Which part of the batch they are.

    Returns:
        The images, ``(n, h, w, c)``.
    """
    keys = jax.random.split(key, 3)
    first, second = (
        random_distortion(k, x, part) for k, x in zip(keys, (images, copies), strict=False)
    )
    chosen = _uniform(keys[2], len(images), 1, part)[:, :, None, None] < PROBABILITY["apr-s"]
    return jnp.where(chosen, recombine(first, second), images)


def _uniform(key: jax.Array, images: int, count: int, part: Part) -> jax.Array:
    whole = jax.random.uniform(key, (images * part.parts, count))
    return jax.lax.dynamic_slice_in_dim(whole, part.number * images, images)
