"""Seeds in one program against each of them alone."""

import dataclasses
import io
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import evaluate, loop, train
from experiments.bench import seeds as bench
from experiments.config import ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from experiments.preemption import Preempted, Preemption
from experiments.record import read_json, read_rows
from experiments.together import spread_over_devices, stack, unstack

SEEDS = (0, 4, 7)
CONFIG = TrainConfig(
    norms=("ubn",),
    seeds=SEEDS,
    seeds_together=True,
    evals_per_epoch=1,
    checkpoint_every=1,
    model=ModelConfig(blocks=(1,), widths=(4,)),
    optim=OptimConfig(epochs=2, batch_size=128, learning_rate=0.05),
    probe=ProbeConfig(every=8, images=8),
)
UPDATES = 22
# Sums in another order; and what differs by a rounding at first is pulled apart by training.
close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)


class Once(Preemption):
    """Asked to stop after some updates; never again."""

    def __init__(self, updates):
        super().__init__()
        self.left = updates

    def requested(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    found = {}
    for name, together in {"together": True, "alone": False}.items():
        config = dataclasses.replace(
            CONFIG, seeds_together=together, run_dir=str(folder / name), resume="auto"
        )
        output = io.StringIO()
        if together:  # Interrupted in the middle of an epoch, and resumed.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(train, "Preemption", lambda seconds: Once(14))
                with pytest.raises(Preempted):
                    train.train(config, Console(file=output))
        train.train(config, Console(file=output, width=100))
        found[name] = folder / name, output.getvalue()
    return found


def test_each_seed_trains_as_if_alone(runs):
    losses = []
    for seed in SEEDS:
        ours, theirs = (
            read_rows(runs[name][0] / f"ubn-seed{seed}" / "train.jsonl") for name in runs
        )
        assert [row["step"] for row in ours] == list(range(1, UPDATES + 1))
        for a, b in zip(ours[:8], theirs[:8], strict=True):
            assert a["learning_rate"] == b["learning_rate"]
            close(a["loss"], b["loss"])
        losses.append(ours[0]["loss"])
        ours, theirs = (read_rows(runs[name][0] / f"ubn-seed{seed}" / "ics.jsonl") for name in runs)
        assert {row["step"] for row in ours} == {8, 16}
        for a, b in zip(ours, theirs, strict=True):
            assert (a["step"], a["layer"]) == (b["step"], b["layer"])
            if a["step"] == 8:
                np.testing.assert_allclose(a["value"], b["value"], rtol=2e-2)
    assert len(set(losses)) == 3  # different seeds, indeed


def test_the_run_is_whole(runs):
    folder, output = runs["together"]
    results = read_json(folder / "summary.json")["results"]
    assert [(r["norm"], r["seed"]) for r in results] == [("ubn", seed) for seed in SEEDS]
    assert "Seeds 0, 4, 7: test accuracy ubn" in output
    assert "goes on after update" in output
    evaluate.evaluate_run(str(folder), Console(file=io.StringIO()))


@pytest.mark.parametrize(("count", "devices"), [(3, 3), (5, 5), (16, 8), (9, 3), (1, 1)])
def test_seeds_are_spread_evenly(count, devices):
    trees = [{"a": jnp.full(2, float(i)), "key": jax.random.key(i)} for i in range(count)]
    spread = spread_over_devices(stack(trees))
    assert len(spread["a"].devices()) == devices
    for i, tree in enumerate(unstack(spread)):
        assert len(tree["a"].devices()) == 1
        assert tree["a"].tolist() == [i, i]
        assert tree["key"] == jax.random.key(i)


def test_benchmark():
    row = bench.measure("ubn", 32, 3, 0.0, CONFIG.model)
    low, high = row.ratio[1:]
    assert 0 < low <= row.ratio[0] <= high
    assert row.alone_ms > 0


def test_one_seed_is_trained_by_itself(monkeypatch):
    monkeypatch.setattr(loop, "train_seeds", lambda *arguments: arguments[3])
    assert loop.train_seed(None, None, None, 5, None) == (5,)
