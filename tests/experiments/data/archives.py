"""Small archives in the true formats of MNIST, CIFAR and ImageNet, for tensorflow-datasets.

They hold random pixels; everything else is as in the real ones, down to the order of the bytes.
"""

import gzip
import importlib.util
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CIFAR10 = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR100 = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PER_FILE = 30
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="tensorflow (the dependency group tf) is missing",
)


def _add(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def cifar(name):
    """The archive of ``cifar10`` or ``cifar100``; and, for each split, its images and labels."""
    rng = np.random.default_rng(len(name))
    fine = name == "cifar100"
    if fine:
        folder, files = "cifar-100-binary", {"train": ["train.bin"], "test": ["test.bin"]}
        words = {
            "coarse_label_names.txt": [f"coarse{i}" for i in range(20)],
            "fine_label_names.txt": [f"fine{i}" for i in range(100)],
        }
    else:
        folder = "cifar-10-batches-bin"
        files = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
        words = {"batches.meta.txt": [*NAMES10, ""]}
    out, splits = io.BytesIO(), {}
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for file, lines in words.items():
            _add(archive, f"{folder}/{file}", "".join(f"{line}\n" for line in lines).encode())
        for split, members in files.items():
            n = PER_FILE * len(members)
            images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
            labels = rng.integers(0, 100 if fine else 10, (n, 1), dtype=np.uint8)
            coarse = rng.integers(0, 20, (n, 1 if fine else 0), dtype=np.uint8)
            # A row: (coarse label,) label, and all red, all green, all blue values.
            planes = images.transpose(0, 3, 1, 2).reshape(n, -1)
            rows = np.concatenate([coarse, labels, planes], axis=1)
            for member, part in zip(members, np.split(rows, len(members)), strict=True):
                _add(archive, f"{folder}/{member}", part.tobytes())
            splits[split] = (images, labels[:, 0])
    return out.getvalue(), splits


def place_cifar(root, name):
    """Puts the archive where tensorflow-datasets looks for a finished download.

    It does not check a finished download again, so the archive need not be the real one.
    """
    content, splits = cifar(name)
    _place_download(root, name, CIFAR100 if name == "cifar100" else CIFAR10, content)
    return splits


def _place_download(root, name, url, content):
    from tensorflow_datasets.core.download import checksums, resource

    known = checksums.get_all_url_infos()[url]
    path = root / "downloads" / name / resource.get_dl_fname(url, known.checksum)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    info = {"urls": [url], "original_fname": Path(url).name}
    Path(f"{path}.INFO").write_text(json.dumps(info))


def place_mnist(root):
    """Puts the four files of MNIST, of 60 and 20 images, where finished downloads are."""
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    builder = tfds.builder("mnist", data_dir=root)
    splits, contents = {}, {}
    for split, prefix, n in (("train", "train", 60), ("test", "t10k", 20)):
        images = rng.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)
        labels = rng.integers(0, 10, n, dtype=np.uint8)
        contents[f"{prefix}-images-idx3-ubyte.gz"] = bytes(16) + images.tobytes()
        contents[f"{prefix}-labels-idx1-ubyte.gz"] = bytes(8) + labels.tobytes()
        splits[split] = (images, labels)
    for url in builder.url_infos:
        _place_download(root, "mnist", url, gzip.compress(contents[url.rpartition("/")[2]]))
    return splits


def place_imagenet(folder, train, validation):
    """Writes the two archives of ImageNet.

    Args:
        folder: Where.
        train: Number of training images of each class; a class is named like "n01440764".
        validation: Number of validation images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)

    def jpeg():
        file = io.BytesIO()
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "JPEG")
        return file.getvalue()

    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as archive:
        for name, count in train.items():
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as images:
                for i in range(count):
                    _add(images, f"{name}_{i}.JPEG", jpeg())
            _add(archive, f"{name}.tar", inner.getvalue())
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        for i in range(1, validation + 1):
            _add(archive, f"ILSVRC2012_val_{i:08d}.JPEG", jpeg())
