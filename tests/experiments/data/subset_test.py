"""A part of the training images, to train or to test on: as many as said, always the same."""

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


def test_held_out_images_are_not_trained_on():
    whole, held = load_dataset("digits"), load_dataset(DataConfig(held_out=200))
    assert (held.train_size, held.test_size) == (1237, 200)
    together = np.concatenate([held.train_images, held.test_images])
    labels = np.concatenate([held.train_labels, held.test_labels])
    order, as_before = (
        np.lexsort([*z.reshape(len(z), -1).T]) for z in (together, whole.train_images)
    )
    np.testing.assert_array_equal(together[order], whole.train_images[as_before])
    np.testing.assert_array_equal(labels[order], whole.train_labels[as_before])
    again = load_dataset(DataConfig(held_out=200, train_images=50))
    np.testing.assert_array_equal(again.test_images, held.test_images)
    assert again.train_size == 50
    assert "tested on 200 held-out training images" in held.name


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


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, r"`held_out` \(=0\) must be at least 1"),
        (1437, r"`held_out` \(=1437\) .* 1437 in digits"),
    ],
)
def test_held_out_impossible(count, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(DataConfig(held_out=count))


def test_not_in_memory():
    from experiments.data.subset import with_held_out, with_train_images

    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Records(Dataset):
        train_size = test_size = 10
        example = pipeline = test_batches = None

    with pytest.raises(ValueError, match=r"`train_images` \(=5\) is not possible for records"):
        with_train_images(Records(name="records", num_classes=10), 5)
    with pytest.raises(ValueError, match=r"`held_out` \(=5\) is not possible for records"):
        with_held_out(Records(name="records", num_classes=10), 5)
