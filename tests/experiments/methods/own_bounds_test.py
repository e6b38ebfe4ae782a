"""The paper's bound beside the measured distance: restated, and never below it."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.config.experiment import (
    ModelConfig,
    NormConfig,
    OptimConfig,
    ProbeConfig,
    TrainConfig,
)
from experiments.data import load_dataset
from experiments.methods import make_method
from experiments.methods.own_bounds import BoundedProbe
from experiments.training.probing import with_probe
from experiments.training.program import build_program
from unitnorm_jax import ics

BATCH = 64


@pytest.fixture(scope="module")
def measured():
    dataset = load_dataset("digits")
    config = TrainConfig(
        norms=("ubn",),
        model=ModelConfig(blocks=(1,), widths=(4,)),
        norm=NormConfig(unit="sample", alpha_init=0.5),
        optim=OptimConfig(epochs=1, batch_size=BATCH, warmup=0.0),
        probe=ProbeConfig(images=12),
    )
    program, traced = build_program(config, "ubn", dataset), []

    def bound(*args):
        traced.append(args)
        return make_method("ubn", config.norm).bound(*args)

    program = with_probe(program._replace(bound=bound), config.probe, dataset)
    state = program.init(jax.random.key(0), dataset.example(BATCH)["image"])
    batch = {"image": dataset.train_images[:BATCH], "label": dataset.train_labels[:BATCH]}
    states = []
    for _ in range(2):
        state, _ = program.train_step(state, batch)
        states.append(ics.snapshot({"params": state.params, "batch_stats": state.batch_stats}))
    for _ in range(2):
        kept = program.probe.keep(states[0])
        rows = program.probe(kept, states[1]).rows(step=2)
    assert len(traced) == len(rows)  # It was compiled once.
    return states, rows, config


def test_is_the_formula_and_holds(measured):
    (before, after), rows, _ = measured
    assert len(rows) == 4
    for row in rows:
        total, biases = 0.0, []
        for side in (before, after):
            layer = side["params"]
            for name in row["layer"].split("/"):
                layer = layer[name]
            alpha, scale, bias = (
                np.asarray(layer[k], np.float64) for k in ("alpha", "scale", "bias")
            )
            radius, typical = 1.0, np.sqrt(64 * 4)
            total += np.abs(scale * alpha).max() * radius
            total += np.abs(scale * (1 - alpha)).max() * typical
            biases.append(bias)
        total += np.sqrt(64 * np.sum((biases[0] - biases[1]) ** 2))
        assert row["upper_own"] == pytest.approx(total, rel=1e-5)
        assert row["d"] == 64 * 4
        assert row["certified_upper"] <= row["upper_own"]
        assert row["upper_own"] < 2 * typical  # Below batch normalization's, since alpha is 1/2.


def test_others_have_none(measured):
    _, _, config = measured
    assert make_method("bn", config.norm).bound is None
    bound = make_method("ubn", config.norm).bound
    assert bound({"kernel": np.ones(3)}, {"kernel": np.ones(3)}, 12) is None


def test_none_with_running_statistics(measured):
    _, _, config = measured
    dataset = load_dataset("digits")
    program = with_probe(build_program(config, "ubn", dataset), ProbeConfig(mode="eval"), dataset)
    assert isinstance(program.probe, ics.ICSProbe)


def test_the_probe_is_called_outside_jit(measured):
    """Under jit gradient ICS is a loop, in which gradients of convolutions are slow on CPUs."""
    states, _, _ = measured
    seen = []

    class Spy:
        def __call__(self, *sides):
            seen.extend(jax.tree.leaves(sides))
            return SimpleNamespace(infos=())

    report = BoundedProbe(Spy(), lambda *_: None)(*states)
    assert report.bounds == {}
    assert seen
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in seen)
