"""MNIST, in memory."""

from experiments.data.config import DataConfig
from experiments.data.dataset import ArrayDataset
from experiments.data.images import BadImages, decode_gray
from experiments.data.in_memory import read_all
from experiments.data.records import Split
from experiments.data.scaling import make_scaling, pixel_moments

_SHAPE = (28, 28, 1)


def load_mnist(config: DataConfig) -> ArrayDataset:
    """Returns MNIST: 60,000 training and 10,000 test images of 28x28 pixels, white on black.

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
    bad = BadImages(config.on_bad_image)
    train, test = (Split("mnist", config.data_dir, name) for name in ("train", "test"))
    train_images, train_labels = read_all(train, _SHAPE, decode_gray, bad)
    test_images, test_labels = read_all(test, _SHAPE, decode_gray, bad)
    scaling = make_scaling(config.scaling, *pixel_moments(train_images), "MNIST")
    return ArrayDataset(
        name=f"MNIST ({len(train_images):,} training and {len(test_images):,} test images)",
        num_classes=train.num_classes,
        scaling=scaling,
        background=-(scaling.mean / scaling.divisor).item(),
        flip=bool(config.flip),
        max_shift=2 if config.max_shift is None else config.max_shift,
        bad=bad,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
