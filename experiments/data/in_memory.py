"""Reads prepared data sets whose images all fit in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.config.data import DataConfig
from experiments.data.dataset import ArrayDataset
from experiments.data.images import BadImageError, BadImages, check_label
from experiments.data.prepare.records import Split
from experiments.data.scaling import make_scaling, pixel_moments

_CHUNK = 1000  # Records read at once.


def load_all(
    config: DataConfig,
    title: str,
    shape: tuple[int, int, int],
    decode: Callable[[bytes, str], np.ndarray],
    **fields: Any,
) -> ArrayDataset:
    """Return a data set with the splits train and test.

    Args:
        config: Which one, where, and how pixels are scaled.
        title: Its name, for people.
        shape: Of every image: height, width, channels.
        decode: Makes pixels of the bytes of a file and its name, for errors.
        **fields: Further fields of ``ArrayDataset``.

    Raises:
        ValueError: If it is not prepared, or damaged; or an image is and ``config.on_bad_image`` is
            ``"error"``.
    """
    bad = BadImages(config.on_bad_image)
    train, test = (Split(config.dataset, config.data_dir, name) for name in ("train", "test"))
    train_images, train_labels = _read(train, shape, decode, bad)
    test_images, test_labels = _read(test, shape, decode, bad)
    return ArrayDataset(
        name=f"{title} ({len(train_images):,} training and {len(test_images):,} test images)",
        num_classes=train.num_classes,
        scaling=make_scaling(config.scaling, *pixel_moments(train_images), title),
        bad=bad,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        **fields,
    )


def _read(
    split: Split,
    shape: tuple[int, int, int],
    decode: Callable[[bytes, str], np.ndarray],
    bad: BadImages,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of a split that can be used.

    They are in the order of their names where they have some, else as they were prepared.
    """
    images = np.empty((len(split), *shape), np.uint8)
    labels = np.empty(len(split), np.int32)
    names: list[str] = []
    for start in range(0, len(split), _CHUNK):
        for example in split.read(range(start, min(start + _CHUNK, len(split)))):
            try:
                image = decode(example.content, example.where)
                if image.shape != shape:
                    raise BadImageError(
                        f"{example.where} has {image.shape[0]}x{image.shape[1]} pixels, but must "
                        f"have {shape[0]}x{shape[1]}."
                    )
                labels[len(names)] = check_label(example.label, split.num_classes, example.where)
            except BadImageError as error:
                bad.add(error)
                continue
            images[len(names)] = image
            names.append(example.name)
    if not names:
        raise ValueError(f"no image is left: {bad.reasons()[-1]} The others are bad, too.")
    # They were shuffled when prepared; names number them as in the original files.
    order = np.argsort(np.asarray(names), kind="stable") if split.named else np.arange(len(names))
    return images[order], labels[order]
