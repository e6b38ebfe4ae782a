"""Data sets by name: what ``--data.dataset`` accepts."""

import dataclasses
from collections.abc import Callable
from typing import cast

from experiments.config.data import DATASETS as DATASETS
from experiments.config.data import DataConfig as DataConfig
from experiments.config.data import DataSet
from experiments.config.data import check_dataset as check_dataset
from experiments.data.cifar import load_cifar
from experiments.data.dataset import ArrayDataset as ArrayDataset
from experiments.data.dataset import Dataset as Dataset
from experiments.data.digits import load_digits
from experiments.data.image_folder import load_image_folder
from experiments.data.imagenet import load_imagenet
from experiments.data.label_noise import with_label_noise
from experiments.data.mnist import load_mnist, load_mnist5k
from experiments.data.pipeline import Batch as Batch
from experiments.data.pipeline import Pipeline as Pipeline
from experiments.data.subset import with_held_out, with_train_images

_LOADERS: dict[str, Callable[[DataConfig], Dataset]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "mnist5k": load_mnist5k,
    "cifar10": load_cifar,
    "cifar100": load_cifar,
    "imagenet2012": load_imagenet,
    "imagefolder": load_image_folder,
}


def load_arrays(config: DataConfig | str) -> ArrayDataset:
    """Return a data set that is in memory, for what needs all its images at once.

    Raises:
        ValueError: If it is read image by image, or as for ``load_dataset``.
    """
    dataset = load_dataset(config)
    if not isinstance(dataset, ArrayDataset):
        raise ValueError(
            f"{dataset.name} is read from files, batch by batch, and this needs a data set in "
            "memory; choose digits, mnist5k, mnist, cifar10, cifar100 or imagefolder."
        )
    return dataset


def load_dataset(config: DataConfig | str) -> Dataset:
    """Return the data set that ``config`` describes; a name stands for its defaults.

    Raises:
        ValueError: If it is not there, damaged or not usable; with what to do.
    """
    if isinstance(config, str):
        check_dataset(config)
        config = DataConfig(dataset=cast(DataSet, config))
    dataset = _LOADERS[config.dataset](config)
    if config.augment:
        dataset = dataclasses.replace(dataset, recombination=config.augment)
    dataset = with_held_out(dataset, config.held_out)
    dataset = with_train_images(dataset, config.train_images)
    return with_label_noise(dataset, config.label_noise)
