"""Every method in the same ResNet, under every transform: what it computes is that of one device.

Where a method draws random numbers, each device draws its own, so that a run on several devices is
another sample of the same distribution: dropout of ic layers is off here, and kalman-published,
which predicts by sampling, is near one device, not equal to it.
"""

import dataclasses
import functools

import numpy as np
import pytest

from experiments.config.experiment import ModelConfig
from experiments.methods import NORMS, NormConfig
from tests.experiments.training.parallel import job
from tests.experiments.training.parallel.transform_test import assert_same

METHODS = (*NORMS, "gn+ws", "none+wn", "bn+enorm", "ubn+enorm")
SAMPLED = "kalman-published"


def configure(**devices):
    return dataclasses.replace(
        job.configure(**devices),
        model=ModelConfig(blocks=(1,), widths=(8,)),
        norm=NormConfig(ic_rate=0.0),
    )


@functools.cache
def one_device(method: str) -> dict[str, np.ndarray]:
    return job.run(configure(num_devices=1), method, init=True, test=True)


@pytest.mark.parametrize("mode", job.TRANSFORMS)
@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in METHODS if m != SAMPLED])
def test_eight_devices_are_one(method, mode):
    actual = job.run(configure(parallel=mode), method, init=True, test=True)
    # Equi-normalization rescales weights after each update, and their rounding with them.
    tolerance = {"rtol": 1e-6, "atol": 4e-6} if method.endswith("+enorm") else {}
    assert_same(actual, one_device(method), **tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("mode", job.TRANSFORMS)
def test_samples_of_each_device(mode):
    """Under jit the batch is one array, and so are the samples; else they differ a little."""
    actual = job.run(configure(parallel=mode), SAMPLED, init=True, test=True)
    if mode == "jit":
        assert_same(actual, one_device(SAMPLED))
        return
    loss = [numbers["['metrics2']['loss']"] for numbers in (actual, one_device(SAMPLED))]
    assert loss[0] != loss[1]
    assert loss[0] == pytest.approx(loss[1], rel=0.05)
