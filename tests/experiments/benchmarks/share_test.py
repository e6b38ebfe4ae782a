"""What probing adds to a run: measured by runs that are the same but for the probe."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.benchmarks import share
from experiments.config.data import DataConfig
from tests.experiments.jobs import CONFIG, DATASET, program


@pytest.mark.slow
def test_runs_take_turns_and_end_alike():
    programs = {"probed": program(), "plain": program()._replace(probe=None)}
    times = share.train_in_turns(CONFIG, programs, DATASET, 0)
    assert {name: len(epochs) for name, epochs in times.items()} == {"probed": 3, "plain": 3}
    assert all(np.all(epochs > 0) for epochs in times.values())


def test_runs_that_end_differently():
    def other(key, images):
        del key
        return program().init(jax.random.key(9), images)

    programs = {"one": program(), "two": program()._replace(init=other)}
    with pytest.raises(RuntimeError, match=r"with .* 'two' than with 'one', .*: \d+ arrays differ"):
        share.train_in_turns(CONFIG, programs, DATASET, 0)


@pytest.mark.slow
def test_a_run_is_measured():
    optim = dataclasses.replace(CONFIG.optim, epochs=11)
    config = dataclasses.replace(CONFIG, optim=optim, data=DataConfig())
    seen = []
    row = share.measure_run("ubn", config, 0.1, lambda seeds: seen.extend(seeds) or seeds)
    assert seen == [0]
    assert (row.norm, row.every, row.images) == ("ubn", 5, 4)
    assert (row.blocks, row.block_updates) == (2, 55)  # The epoch that is left over is no block.
    assert row.step_ms > 0
    assert row.probe_ms > 0
    added, low, high = row.added
    assert -1 < low <= added <= high
