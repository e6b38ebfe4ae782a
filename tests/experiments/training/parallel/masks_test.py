"""Masks with different counts on the devices: sums and counts are added, not means."""

import numpy as np
import pytest

from tests.experiments.training.parallel import job, masks


@pytest.mark.parametrize(
    ("mode", "norm"), [("jit", "bn"), *((mode, "ubn") for mode in job.TRANSFORMS)]
)
def test_statistics_are_those_of_the_valid_values(mode, norm):
    found = masks.statistics(mode, norm)
    for name, value in masks.reference().items():
        np.testing.assert_allclose(found["batch_stats"][name], value, rtol=2e-6, err_msg=name)
    one = masks.statistics("jit", norm, num_devices=1)
    np.testing.assert_allclose(found["squares"], one["squares"], rtol=1e-6)


def test_a_mean_of_means_would_be_noticed():
    """What ``nn.BatchNorm`` takes with ``axis_name`` and a mask."""
    found = masks.statistics("pmap", "bn")["batch_stats"]
    assert not np.allclose(found["mean"], masks.reference()["mean"], rtol=1e-2)
