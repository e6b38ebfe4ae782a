"""CIFAR-10 and CIFAR-100, in memory."""

from functools import partial

from experiments.data.config import DataConfig
from experiments.data.dataset import ArrayDataset
from experiments.data.images import BadImages, decode_rgb
from experiments.data.in_memory import read_all
from experiments.data.records import Split
from experiments.data.scaling import make_scaling, pixel_moments

_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
_SHAPE = (32, 32, 3)


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
    decode = partial(decode_rgb, convert=bool(config.convert_images))
    train_images, train_labels = read_all(train, _SHAPE, decode, bad)
    test_images, test_labels = read_all(test, _SHAPE, decode, bad)
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
