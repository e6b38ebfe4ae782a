"""Seeds in one program against each of them alone."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train
from experiments.benchmarks import seeds as bench
from experiments.common.errors import Preempted
from experiments.common.files import read_json, read_rows
from experiments.config.experiment import ModelConfig, OptimConfig, ProbeConfig, TrainConfig
from experiments.data import load_dataset
from experiments.training import loop
from experiments.training.preemption import Preemption
from experiments.training.probing import with_probe
from experiments.training.program import build_program, compile_program
from experiments.training.seeds import spread_over_devices, stack, unstack

pytestmark = pytest.mark.slow

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
    """Asked to stop at one of many times that it is asked."""

    def __init__(self, updates):
        super().__init__()
        self.left = updates

    def requested(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the same runs, together (interrupted in an epoch, and resumed) and alone."""
    dataset = load_dataset("digits")
    program = with_probe(build_program(CONFIG, "ubn", dataset), CONFIG.probe, dataset)
    programs = [compile_program(program, dataset, CONFIG.optim.batch_size, together=len(SEEDS))]
    folder = tmp_path_factory.mktemp("together")
    arguments = CONFIG, programs, dataset, SEEDS, folder / "together"
    messages: list[str] = []
    with pytest.raises(Preempted):
        loop.train_seeds(*arguments, Once(23))  # asked before updates and batches of tests
    loop.train_seeds(*arguments, on_message=messages.append)
    assert [m for m in messages if "goes on after update 14" in m] == messages
    assert len(messages) == 3
    for seed in SEEDS:
        loop.train_seeds(CONFIG, programs, dataset, (seed,), folder / "alone")
    return {name: folder / name for name in ("together", "alone")}


def test_each_seed_trains_as_if_alone(runs):
    losses = []
    for seed in SEEDS:
        ours, theirs = (read_rows(runs[name] / f"ubn-seed{seed}" / "train.jsonl") for name in runs)
        assert [row["step"] for row in ours] == list(range(1, UPDATES + 1))
        for a, b in zip(ours[:8], theirs[:8], strict=True):
            assert a["learning_rate"] == b["learning_rate"]
            close(a["loss"], b["loss"])
        losses.append(ours[0]["loss"])
        ours, theirs = (read_rows(runs[name] / f"ubn-seed{seed}" / "ics.jsonl") for name in runs)
        assert {row["step"] for row in ours} == {8, 16}
        for a, b in zip(ours, theirs, strict=True):
            assert (a["step"], a["layer"]) == (b["step"], b["layer"])
            if a["step"] == 8:
                np.testing.assert_allclose(a["value"], b["value"], rtol=2e-2)
    assert len(set(losses)) == 3  # different seeds, indeed


def test_command(tmp_path, capsys):
    words = "--norms ubn --seeds 1 2 --seeds-together --probe.every 0 --evals-per-epoch 1"
    words += " --optim.epochs 1 --optim.batch-size 128 --model.blocks 1 --model.widths 4"
    assert train.main([*words.split(), "--run-dir", str(tmp_path / "run")]) == 0
    results = read_json(tmp_path / "run" / "summary.json")["results"]
    assert [(r["norm"], r["seed"]) for r in results] == [("ubn", 1), ("ubn", 2)]
    assert "Seeds 1, 2: test accuracy ubn" in capsys.readouterr().out


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
