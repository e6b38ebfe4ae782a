"""MNIST, in memory."""

import dataclasses

import numpy as np

from experiments.config.data import DataConfig
from experiments.data.dataset import ArrayDataset
from experiments.data.images import decode_gray
from experiments.data.in_memory import load_all


def load_mnist(config: DataConfig) -> ArrayDataset:
    """Return MNIST: 60,000 training and 10,000 test images of 28x28 pixels, white on black.

    What random shifts bring in from outside is black.

    Raises:
        ValueError: If it is not prepared, or damaged; or an image is and ``config.on_bad_image`` is
            ``"error"``; or ``config`` asks for a scaling that is not possible.

    References:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
        recognition", 1998.
    """
    if config.scaling != "channel-std":
        raise ValueError(
            f"`scaling` (={config.scaling!r}) is not possible for mnist: some pixels are black in "
            "all images, so their variance is 0. Use --data.scaling channel-std."
        )
    dataset = load_all(
        config,
        "MNIST",
        (28, 28, 1),
        decode_gray,
        flip=bool(config.flip),
        max_shift=2 if config.max_shift is None else config.max_shift,
    )
    black = dataset.standardize(np.zeros((1, 1, 1, 1), np.uint8))
    return dataclasses.replace(dataset, background=float(black.item()))
