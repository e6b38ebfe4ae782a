"""Seeds in one program against each of them alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import seeds as bench
from experiments.build import EVAL_BATCH, build_program
from experiments.config import ModelConfig, OptimConfig, TrainConfig
from experiments.data import load_dataset
from experiments.together import spread_over_devices, stack, together, unstack

SEEDS = (0, 4, 7)
CONFIG = TrainConfig(
    model=ModelConfig(blocks=(1,), widths=(4,)),
    optim=OptimConfig(epochs=1, batch_size=32, learning_rate=0.05),
)
close = partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5)


@pytest.fixture(scope="module")
def setup():
    dataset = load_dataset("digits")
    return dataset, build_program(CONFIG, "ubn", dataset)


def batches(dataset, seed, count):
    found = iter(dataset.pipeline(seed, 32).batches(0))
    return [next(found) for _ in range(count)]


def test_each_seed_trains_as_if_alone(setup):
    dataset, alone = setup
    images = dataset.example(32)["image"]
    many = together(alone)
    states = [alone.init(jax.random.key(seed), images) for seed in SEEDS]
    stacked = many.init(jnp.stack([jax.random.key(seed) for seed in SEEDS]), images)
    for ours, theirs in zip(unstack(stacked), states, strict=True):
        assert jax.tree.all(jax.tree.map(np.array_equal, ours.params, theirs.params))
    stacked = spread_over_devices(stacked)
    assert len(jax.tree.leaves(stacked.params)[0].sharding.device_set) == 3
    data = [batches(dataset, seed, 4) for seed in SEEDS]
    for step in range(4):
        found = [alone.train_step(s, d[step]) for s, d in zip(states, data, strict=True)]
        states, metrics = [f[0] for f in found], [f[1] for f in found]
        batch = spread_over_devices(stack([d[step] for d in data]))
        stacked, at_once = many.train_step(stacked, batch)
        jax.tree.map(close, at_once, stack(metrics))
    # Different seeds, indeed.
    assert len(set(np.asarray(at_once["loss"]).round(4).tolist())) == 3
    for ours, theirs in zip(unstack(jax.device_get(stacked)), states, strict=True):
        jax.tree.map(close, ours.params, theirs.params)
        jax.tree.map(close, ours.batch_stats, theirs.batch_stats)
    test = next(iter(dataset.test_batches(EVAL_BATCH)))
    sums = unstack(jax.device_get(many.eval_step(stacked, test)))
    for ours, theirs in zip(sums, states, strict=True):
        expected = alone.eval_step(theirs, test)
        assert abs(ours["correct"] - expected["correct"]) <= 1
        assert ours["count"] == expected["count"]
        close(ours["cross_entropy"], expected["cross_entropy"])


@pytest.mark.parametrize(("count", "devices"), [(3, 3), (5, 5), (16, 8), (9, 3), (1, 1)])
def test_seeds_are_spread_evenly(count, devices):
    spread = spread_over_devices({"a": jnp.zeros((count, 2))})
    assert len(spread["a"].sharding.device_set) == devices


def test_benchmark():
    row = bench.measure("ubn", 32, 3, 0.0, CONFIG.model)
    low, high = row.ratio[1:]
    assert 0 < low <= row.ratio[0] <= high
    assert row.alone_ms > 0
