"""Records like ImageNet's, made here without tensorflow, and what is read from them."""

import io
import threading
import time

import numpy as np
from PIL import Image

from experiments.config.data import DataConfig
from experiments.data import load_dataset

TRAIN, TEST, CLASSES, SIZE = 26, 11, 3, 32


def encode(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=95)
    return file.getvalue()


def plain(number, h=40, w=50):
    """A JPEG of one colour, which tells its number whatever is cropped."""
    return encode(np.full((h, w, 3), [9 * number, 50, 255 - 9 * number], np.uint8))


def number_of(image):
    """The number of a plain image; red grows with it, blue falls."""
    red, green, blue = image.reshape(-1, 3).astype(float).mean(axis=0)
    assert abs(green - 50) < 5
    assert abs(red + blue - 255) < 5
    return round(red / 9)


def records(count, prefix, **changes):
    for i in range(count):
        content = changes.get(f"content{i}", plain(i))
        yield f"{prefix}_{i}.JPEG", content, changes.get(f"label{i}", i % CLASSES)


def load(root, **options):
    options = {"image_size": SIZE, "threads": 3} | options
    return load_dataset(DataConfig(dataset="imagenet2012", data_dir=str(root), **options))


def numbers(batches):
    """The numbers of the images of each batch; each has the label of its number."""
    out = []
    for batch in batches:
        found = [number_of(image) for image in np.asarray(batch["image"])]
        assert [n % CLASSES for n in found] == np.asarray(batch["label"]).tolist()
        out.append(found)
    return np.asarray(out)


def epoch_of(dataset, epoch=0, seed=0, **hosts):
    pipeline = dataset.pipeline(seed, 4, **hosts)
    try:
        return numbers(pipeline.batches(epoch))
    finally:
        pipeline.close()


def threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("grain")]


def settled(expected, seconds=5):
    """Waits until the number of grain's threads is ``expected``."""
    end = time.monotonic() + seconds
    while len(threads()) != expected and time.monotonic() < end:
        time.sleep(0.01)
    return len(threads())
