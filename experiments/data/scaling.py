"""From pixels to the input of the network: (x - mean) / divisor, by the training images."""

from typing import NamedTuple, get_args

import numpy as np

from experiments.config.data import Scaling as Kind

_CHUNK = 1024  # Images whose squares are in memory at once.


class Scaling(NamedTuple):
    """Scaling ``(x - mean) / divisor``.

    Attributes:
        mean: ``(1, 1, 1, c)`` or ``(1, h, w, c)``, float32, in the units of the pixels.
        divisor: Likewise; every entry is positive.
    """

    mean: np.ndarray
    divisor: np.ndarray


# Of the RGB values 0-255 of the training images; what nearly all published networks use.
IMAGENET = Scaling(
    mean=np.asarray([0.485, 0.456, 0.406], np.float32).reshape(1, 1, 1, 3) * np.float32(255),
    divisor=np.asarray([0.229, 0.224, 0.225], np.float32).reshape(1, 1, 1, 3) * np.float32(255),
)


def pixel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and (biased) variance of each pixel and channel, exact but for one rounding.

    Args:
        images: ``(n, h, w, c)`` uint8, in memory or mapped.

    Returns:
        Two ``(h, w, c)`` float64 arrays.
    """
    total = np.zeros(images.shape[1:], np.uint64)
    squares = np.zeros(images.shape[1:], np.uint64)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK].astype(np.uint32)
        total += chunk.sum(axis=0, dtype=np.uint64)
        squares += (chunk * chunk).sum(axis=0, dtype=np.uint64)
    n = len(images)
    # n * squares - total^2 in exact integers: no digits cancel. 2^64 holds it up to 16 million.
    spread = np.uint64(n) * squares - total * total
    return total / n, spread / float(n) ** 2


def make_scaling(kind: str, mean: np.ndarray, var: np.ndarray, name: str) -> Scaling:
    """Return a scaling by statistics of the training images.

    Args:
        kind: ``"channel-std"``: per channel, by the standard deviation, as is customary.
            ``"pixel-variance"``: per pixel and channel, by the VARIANCE: the paper's code.
        mean: Mean of each pixel and channel, ``(h, w, c)`` float64.
        var: Variance, likewise.
        name: Name of the data set, for errors.

    Raises:
        ValueError: If ``kind`` is unknown, or a divisor would be 0.
    """
    if kind == "channel-std":
        center = mean.mean(axis=(0, 1))  # (h, w, c) -> (c,)
        # Law of total variance: within each pixel, and between pixels.
        spread = np.sqrt((var + np.square(mean - center)).mean(axis=(0, 1)))
    elif kind == "pixel-variance":
        center, spread = mean, var
    else:
        raise ValueError(f"`scaling` (={kind!r}) must be one of {', '.join(get_args(Kind))}.")
    constant = int(np.sum(spread == 0))
    if constant:
        what = "channels" if kind == "channel-std" else "pixels"
        way_out = " Use --data.scaling channel-std." if kind == "pixel-variance" else ""
        raise ValueError(
            f"`scaling` (={kind!r}) is not possible for {name}: {constant} of {spread.size} {what} "
            f"are the same in all training images.{way_out}"
        )
    shape = (1, *mean.shape) if kind == "pixel-variance" else (1, 1, 1, mean.shape[-1])
    return Scaling(
        mean=center.reshape(shape).astype(np.float32),
        divisor=spread.reshape(shape).astype(np.float32),
    )
