"""The 1,797 handwritten 8x8 digits that scikit-learn carries: real images without a download."""

import numpy as np

from experiments.config.data import DataConfig
from experiments.data.dataset import ArrayDataset


def load_digits(config: DataConfig) -> ArrayDataset:
    """Return scikit-learn's digits: 1,437 training and 360 test images.

    The split is stratified by class and fixed: it does not depend on the seed of a run. Images are
    standardized over all values, so that black is the same number everywhere.

    Raises:
        ValueError: If ``config`` asks for a scaling that is not possible.
    """
    if config.scaling != "channel-std":
        raise ValueError(
            f"`scaling` (={config.scaling!r}) is not possible for digits: some pixels are black in "
            "all images, so their variance is 0. Use --data.scaling channel-std."
        )
    # Takes half a second to import, so only a run that needs it does.
    from sklearn import datasets, model_selection

    images, labels = datasets.load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16.0).astype(np.float32)
    train_images, test_images, train_labels, test_labels = model_selection.train_test_split(
        images, labels.astype(np.int32), test_size=360, stratify=labels, random_state=0
    )
    mean, std = train_images.mean(dtype=np.float64), train_images.std(dtype=np.float64)
    return ArrayDataset(
        name="digits 8x8 (1,437 training and 360 test images, stratified fixed split)",
        train_images=((train_images - mean) / std).astype(np.float32),
        train_labels=train_labels,
        test_images=((test_images - mean) / std).astype(np.float32),
        test_labels=test_labels,
        num_classes=10,
        background=float(-mean / std),
        black_white=(float(-mean / std), float((1 - mean) / std)),
        flip=bool(config.flip),
        max_shift=1 if config.max_shift is None else config.max_shift,
    )
