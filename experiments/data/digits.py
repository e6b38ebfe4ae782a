"""The 1,797 handwritten 8x8 digits that scikit-learn carries: real images without a download."""

from typing import NamedTuple

import numpy as np

from experiments.data.pipeline import ArrayPipeline, Pipeline


class Dataset(NamedTuple):
    """A classification data set in memory, standardized.

    Attributes:
        name: What the tables and figures call it, with its split.
        train_images: ``(n, h, w, c)`` float32, mean 0 and standard deviation 1 over all values.
        train_labels: ``(n,)`` int32.
        test_images: ``(m, h, w, c)`` float32, standardized with the TRAINING mean and deviation.
        test_labels: ``(m,)`` int32.
        num_classes: Number of classes.
        background: The standardized value of a black pixel: what shifted images are filled with.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    background: float

    def pipeline(self, seed: int, batch_size: int) -> Pipeline:
        """Returns the training batches of ``seed``."""
        images, labels = self.train_images, self.train_labels
        return ArrayPipeline(images, labels, seed=seed, batch_size=batch_size)


def load_digits() -> Dataset:
    """Returns scikit-learn's digits: 1,437 training and 360 test images.

    The split is stratified by class and fixed: it does not depend on the seed of a run.
    """
    # Takes half a second to import, so only a run that needs it does.
    from sklearn import datasets, model_selection

    images, labels = datasets.load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16.0).astype(np.float32)
    train_images, test_images, train_labels, test_labels = model_selection.train_test_split(
        images, labels.astype(np.int32), test_size=360, stratify=labels, random_state=0
    )
    mean, std = train_images.mean(dtype=np.float64), train_images.std(dtype=np.float64)
    return Dataset(
        name="digits 8x8 (1,437 training and 360 test images, stratified fixed split)",
        train_images=((train_images - mean) / std).astype(np.float32),
        train_labels=train_labels,
        test_images=((test_images - mean) / std).astype(np.float32),
        test_labels=test_labels,
        num_classes=10,
        background=float(-mean / std),
    )
