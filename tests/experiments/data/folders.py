"""Image folders that tests make, and how they load them."""

import numpy as np
from PIL import Image

from experiments.config.data import DataConfig
from experiments.data import load_dataset

RNG = np.random.default_rng(0)


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, **options)


def make_root(tmp_path):
    """Two classes, 6 + 4 training and 2 + 3 test images, of 8x12 pixels; PNG loses nothing."""
    root = tmp_path / "pictures"
    for split, name, count in [("train", "b", 6), ("train", "a", 4), ("test", "a", 2)]:
        for i in range(count):
            write(root / split / name / f"{i}.png", pixels(), compress_level=0)
    for i, suffix in enumerate([".jpg", ".JPG", ".jpeg"]):
        write(root / "test" / "b" / f"{i}{suffix}", pixels(), quality=95)
    (root / "train" / "a" / ".hidden.png").write_text("not an image")
    (root / "train" / "a" / "notes.txt").write_text("not an image")
    return root


def pixels(h=8, w=12):
    return RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)


def load(root, **options):
    cache = root.parent / "cache"
    options = {"dataset": "imagefolder", "data_dir": str(root), "cache_dir": str(cache)} | options
    return load_dataset(DataConfig(**options))
