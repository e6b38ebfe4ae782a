"""CIFAR-10 and CIFAR-100, in memory."""

import numpy as np

from experiments.data.config import DataConfig
from experiments.data.dataset import ArrayDataset
from experiments.data.images import BadImageError, BadImages, check_label, decode_rgb
from experiments.data.records import Split
from experiments.data.scaling import make_scaling, pixel_moments

_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_SIDE = 32
_CHUNK = 1000  # Records read at once.


def load_cifar(config: DataConfig) -> ArrayDataset:
    """Returns CIFAR-10 or CIFAR-100: 50,000 training and 10,000 test images of 32x32 pixels.

    Images are in the order of the original files, however they were prepared.

    Raises:
        ValueError: If it is not prepared, or damaged; or an image is and ``config.on_bad_image`` is
            ``"error"``.

    References:
        A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    bad = BadImages(config.on_bad_image)
    train, test = (Split(config.dataset, config.data_dir, name) for name in ("train", "test"))
    train_images, train_labels = _read(train, config, bad)
    test_images, test_labels = _read(test, config, bad)
    title = _TITLES[config.dataset]
    return ArrayDataset(
        name=f"{title} ({len(train_images):,} training and {len(test_images):,} test images)",
        num_classes=train.num_classes,
        scaling=make_scaling(config.scaling, *pixel_moments(train_images), title),
        flip=config.flip is not False,
        max_shift=4 if config.max_shift is None else config.max_shift,
        bad=bad,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )


def _read(split: Split, config: DataConfig, bad: BadImages) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images and labels of a split that can be used."""
    images = np.empty((len(split), _SIDE, _SIDE, 3), np.uint8)
    labels = np.empty(len(split), np.int32)
    names: list[str] = []
    for start in range(0, len(split), _CHUNK):
        for example in split.read(range(start, min(start + _CHUNK, len(split)))):
            try:
                image = decode_rgb(example.content, example.where, bool(config.convert_images))
                if image.shape != images.shape[1:]:
                    raise BadImageError(
                        f"{example.where} has {image.shape[0]}x{image.shape[1]} pixels, but must "
                        f"have {_SIDE}x{_SIDE}."
                    )
                labels[len(names)] = check_label(example.label, split.num_classes, example.where)
            except BadImageError as error:
                bad.add(error)
                continue
            images[len(names)] = image
            names.append(example.name)
    if not names:
        raise ValueError(f"no image is left: {bad.reasons()[-1]} The others are bad, too.")
    # They were shuffled when prepared; their names number them as in the original files.
    order = np.argsort(np.asarray(names), kind="stable")
    return images[order], labels[order]
