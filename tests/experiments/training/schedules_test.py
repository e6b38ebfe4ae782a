"""Every schedule against its formula, update by update."""

import math
from typing import get_args

import numpy as np
import pytest

from experiments.config.experiment import OptimConfig, Schedule
from experiments.configs import load
from experiments.training.schedules import make_schedule


def restated(config, t, updates_per_epoch):
    total = config.epochs * updates_per_epoch
    warm, peak = int(config.warmup * total), config.learning_rate

    def half_cosine(start, end, share):
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    if config.schedule == "cosine":
        if t < warm:
            return peak * t / warm
        return half_cosine(peak, 0.0, (t - warm) / (total - warm))
    if config.schedule == "one-cycle":
        if t < warm:
            return half_cosine(peak / 25, peak, t / warm)
        return half_cosine(peak, peak / 250_000, (t - warm) / (total - warm))
    drops = sum(t // updates_per_epoch >= boundary for boundary in config.boundaries)
    return peak * config.decay_rate**drops * (min(t / warm, 1) if warm else 1)


@pytest.mark.parametrize(
    "fields",
    [
        *({"schedule": "cosine", "warmup": warmup} for warmup in (0.0, 0.2)),
        {"schedule": "one-cycle", "warmup": 0.3},
        {"schedule": "piecewise", "warmup": 0.0, "boundaries": (2, 3), "decay_rate": 0.1},
        {"schedule": "piecewise", "warmup": 0.5, "boundaries": (1,)},
        {"schedule": "piecewise", "warmup": 0.0},
    ],
)
def test_schedule(fields):
    config = OptimConfig(epochs=4, learning_rate=0.3, **fields)
    updates = np.arange(4 * 7)
    found = np.array([make_schedule(config, 7)(t) for t in updates])
    np.testing.assert_allclose(found, [restated(config, t, 7) for t in updates], atol=1e-7)


def test_authors_learning_rates():
    config, _ = load("cifar10_resnet18")
    rate = make_schedule(config.optim, 390)
    expected = {0: 0.05, 60: 0.05, 61: 0.01, 120: 0.01, 121: 0.002, 160: 0.002}
    expected |= {161: 0.0004, 199: 0.0004}
    for epoch, value in expected.items():
        for update in (390 * epoch, 390 * epoch + 389):
            assert float(rate(update)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "step"}, r"`schedule` \(='step'\) is unknown; choose from cosine, one-cyc"),
        ({"schedule": "one-cycle", "warmup": 0.0}, r"`warmup` \(=0.0\) must be positive for one-"),
        ({"boundaries": (2,)}, r"`boundaries` \(=\(2,\)\) are of --optim.schedule piecewise alone"),
        (
            {"schedule": "piecewise", "boundaries": (3, 2)},
            r"`boundaries` \(=\(3, 2\)\) must be epochs above 0 in ascending order",
        ),
        ({"schedule": "piecewise", "boundaries": (0,)}, "must be epochs above 0"),
        ({"decay_rate": 0.0}, r"`decay_rate` \(=0.0\) must be a positive number"),
    ],
)
def test_bad_options(fields, message):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**fields)


def test_all_are_offered():
    for name in get_args(Schedule):
        OptimConfig(schedule=name)
