"""Reads prepared data sets whose images all fit in memory."""

from collections.abc import Callable

import numpy as np

from experiments.data.images import BadImageError, BadImages, check_label
from experiments.data.records import Split

_CHUNK = 1000  # Records read at once.


def read_all(
    split: Split,
    shape: tuple[int, int, int],
    decode: Callable[[bytes, str], np.ndarray],
    bad: BadImages,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images and labels of a split that can be used.

    They are in the order of their names where they have some, else as they were prepared.

    Args:
        split: What to read.
        shape: Of every image: height, width, channels.
        decode: Makes pixels of the bytes of a file and its name, for errors.
        bad: Takes the images that cannot be used.

    Raises:
        ValueError: If no image is left; or as ``bad`` does.
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
