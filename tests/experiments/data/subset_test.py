"""A part of the training images: as many as said, always the same ones."""

import dataclasses

import numpy as np
import pytest

from experiments.config.data import DataConfig
from experiments.data import Dataset, load_dataset


def test_as_many_and_nested():
    whole = load_dataset("digits")
    assert load_dataset(DataConfig(train_images=1437)).train_images.shape == (1437, 8, 8, 1)
    small, large = (load_dataset(DataConfig(train_images=n)) for n in (100, 300))
    assert [d.train_size for d in (small, large)] == [100, 300]
    position = {image.tobytes(): i for i, image in enumerate(whole.train_images)}
    rows = [[position[image.tobytes()] for image in d.train_images] for d in (small, large)]
    assert rows[0] == sorted(rows[0])
    assert set(rows[0]) < set(rows[1])
    np.testing.assert_array_equal(small.train_labels, whole.train_labels[rows[0]])
    np.testing.assert_array_equal(small.test_images, whole.test_images)
    assert "100 of its 1,437 training images" in small.name
    assert set(small.train_labels) == set(range(10))  # Drawn, not the first ones of a class.
    noisy = load_dataset(DataConfig(train_images=100, label_noise=0.5))
    assert np.sum(noisy.train_labels != small.train_labels) == 50


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, r"`train_images` \(=0\) must be at least 1"),
        (1438, r"`train_images` \(=1438\) must be at most the number of .*: 1437 in digits"),
    ],
)
def test_impossible(count, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(DataConfig(train_images=count))


def test_not_in_memory():
    from experiments.data.subset import with_train_images

    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Records(Dataset):
        train_size = test_size = 10
        example = pipeline = test_batches = None

    with pytest.raises(ValueError, match=r"`train_images` \(=5\) is not possible for records"):
        with_train_images(Records(name="records", num_classes=10), 5)
