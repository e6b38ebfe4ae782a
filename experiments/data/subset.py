"""Fewer training images: what a small machine can train in the time there is."""

import dataclasses

import numpy as np

from experiments.data.dataset import ArrayDataset, Dataset

SEED = 0  # Of the draw; not a run's seed, so that all runs have the same images.


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
    if not isinstance(dataset, ArrayDataset):
        raise ValueError(
            f"`train_images` (={count}) is not possible for {dataset.name}: its images are read "
            "while it trains. Choose a data set in memory, or leave it out."
        )
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
