"""Fewer training images, or some of them in the place of the test images."""

import dataclasses

import numpy as np

from experiments.data.dataset import Dataset, in_memory

# Of the draws; not a run's seed, so that all runs have the same images.
SEED, HELD_OUT_SEED = 0, 1


def with_held_out(dataset: Dataset, count: int | None) -> Dataset:
    """Return ``dataset`` tested on ``count`` of its training images, which it does not train on.

    Options are chosen by these, so that the test images decide nothing. Pixels are scaled as
    without: by all training images.

    Args:
        dataset: In memory.
        count: How many, drawn at random but always the same. None: the test images.

    Raises:
        ValueError: If none would be left to train on, or the images are not in memory.
    """
    if count is None:
        return dataset
    dataset = in_memory(dataset, "held_out", count)
    if count >= dataset.train_size:
        raise ValueError(
            f"`held_out` (={count}) must be less than the number of training images: "
            f"{dataset.train_size} in {dataset.name}."
        )
    order = np.random.default_rng(HELD_OUT_SEED).permutation(dataset.train_size)
    held_out, rest = np.sort(order[:count]), np.sort(order[count:])
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}, tested on {count:,} held-out training images",
        train_images=dataset.train_images[rest],
        train_labels=dataset.train_labels[rest],
        test_images=dataset.train_images[held_out],
        test_labels=dataset.train_labels[held_out],
    )


def with_train_images(dataset: Dataset, count: int | None) -> Dataset:
    """Return ``dataset`` with ``count`` of its training images; the test images stay.

    Args:
        dataset: In memory.
        count: How many, drawn at random but always the same, and in their order; a larger number
            has those of a smaller one. None: all.

    Raises:
        ValueError: If there are not as many, or the images are not in memory.
    """
    if count is None:
        return dataset
    dataset = in_memory(dataset, "train_images", count)
    if count > dataset.train_size:
        raise ValueError(
            f"`train_images` (={count}) must be at most the number of training images: "
            f"{dataset.train_size} in {dataset.name}."
        )
    rows = np.sort(np.random.default_rng(SEED).permutation(dataset.train_size)[:count])
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}, {count:,} of its {dataset.train_size:,} training images",
        train_images=dataset.train_images[rows],
        train_labels=dataset.train_labels[rows],
    )
