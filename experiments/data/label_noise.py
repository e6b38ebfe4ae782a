"""Wrong labels on purpose: how a method takes them."""

import dataclasses

import numpy as np

from experiments.data.dataset import Dataset, in_memory

SEED = 0  # Of the draw; not a run's seed, so that all runs have the same wrong labels.


def with_label_noise(dataset: Dataset, share: float) -> Dataset:
    """Return ``dataset`` with some of its training labels wrong; the test labels stay.

    Args:
        dataset: In memory.
        share: Of the training images, in [0, 1], rounded to a whole number of them. Each gets
            another class than its own, all others being equally likely. The same images get the
            same labels whenever ``share`` is the same, and keep them when it grows.

    Raises:
        ValueError: If the labels are not in memory.
    """
    if share == 0:
        return dataset
    dataset = in_memory(dataset, "label_noise", share)
    rng = np.random.default_rng(SEED)
    n = dataset.train_size
    wrong = rng.permutation(n)[: round(share * n)]
    shift = rng.integers(1, dataset.num_classes, n)[wrong]
    labels = dataset.train_labels.copy()
    labels[wrong] = (labels[wrong] + shift) % dataset.num_classes
    name = f"{dataset.name}, {100 * share:g} % of the training labels wrong"
    return dataclasses.replace(dataset, train_labels=labels, name=name)
