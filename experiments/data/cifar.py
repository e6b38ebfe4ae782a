"""CIFAR-10 and CIFAR-100, in memory."""

from functools import partial

from experiments.config.data import DataConfig
from experiments.data.dataset import ArrayDataset
from experiments.data.images import decode_rgb
from experiments.data.in_memory import load_all

_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def load_cifar(config: DataConfig) -> ArrayDataset:
    """Return CIFAR-10 or CIFAR-100: 50,000 training and 10,000 test images of 32x32 pixels.

    Images are in the order of the original files, however they were prepared.

    Raises:
        ValueError: If it is not prepared, or damaged; or an image is and ``config.on_bad_image`` is
            ``"error"``.

    References:
        A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    return load_all(
        config,
        _TITLES[config.dataset],
        (32, 32, 3),
        partial(decode_rgb, convert=bool(config.convert_images)),
        flip=config.flip is not False,
        max_shift=4 if config.max_shift is None else config.max_shift,
    )
