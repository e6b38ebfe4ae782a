"""Wrong labels: how many, which, and that nothing else changes."""

import dataclasses

import numpy as np
import pytest

from experiments.config.data import DataConfig
from experiments.data import Dataset, load_dataset


def test_as_many_wrong_as_said_and_the_same_ones():
    clean = load_dataset("digits")
    before: set[int] = set()
    for share in (0.1, 0.4, 1.0):
        noisy = load_dataset(DataConfig(label_noise=share))
        wrong = np.flatnonzero(noisy.train_labels != clean.train_labels)
        assert len(wrong) == round(share * 1437)
        assert before <= set(wrong)
        before = set(wrong)
        again = load_dataset(DataConfig(label_noise=share))
        np.testing.assert_array_equal(noisy.train_labels, again.train_labels)
        np.testing.assert_array_equal(noisy.train_images, clean.train_images)
        np.testing.assert_array_equal(noisy.test_labels, clean.test_labels)
        assert noisy.train_labels.dtype == clean.train_labels.dtype
        assert f"{100 * share:g} % of the training labels wrong" in noisy.name
    # All other classes are as likely: nine of them, 1,437 labels.
    shift = (noisy.train_labels - clean.train_labels) % 10
    np.testing.assert_allclose(np.bincount(shift, minlength=10)[1:] / 1437, 1 / 9, atol=0.025)
    assert load_dataset(DataConfig(label_noise=0.0)).name == clean.name


def test_not_in_memory():
    from experiments.data.label_noise import with_label_noise

    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Records(Dataset):
        train_size = test_size = 10
        example = pipeline = test_batches = None

    with pytest.raises(ValueError, match=r"`label_noise` \(=0.5\) is not possible for records"):
        with_label_noise(Records(name="records", num_classes=10), 0.5)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_bad_share(share):
    with pytest.raises(ValueError, match=r"`label_noise` \(=.*\) must be in \[0, 1\]"):
        DataConfig(label_noise=share)
