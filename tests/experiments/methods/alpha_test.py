"""What becomes of alpha in training: each rule against its restatement, update by update."""

from functools import partial

import chex
import jax
import numpy as np
import optax
import pytest

from experiments import methods
from experiments.analysis.compare.combine import used_options
from experiments.config.experiment import ModelConfig, NormConfig, OptimConfig, TrainConfig
from experiments.data import load_dataset
from experiments.methods.enorm import balance_state
from experiments.training import steps
from experiments.training.program import build_program, make_model
from unitnorm_jax import ics

UPDATES = 22  # of two epochs
BATCH = 128


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("digits")


def make_program(dataset, **options):
    config = TrainConfig(
        norms=("ubn",),
        model=ModelConfig(blocks=(1,), widths=(4,)),
        norm=NormConfig(**options),
        optim=OptimConfig(epochs=2, batch_size=BATCH),
    )
    return build_program(config, "ubn", dataset)


def batches(dataset, count):
    for i in range(count):
        rows = slice(i * BATCH, (i + 1) * BATCH)
        yield {"image": dataset.train_images[rows], "label": dataset.train_labels[rows]}


def alphas(state):
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state.params))
    return {jax.tree_util.keystr(p): x for p, x in leaves if p[-1].key == "alpha"}


RULES = {
    "fixed": (
        {"alpha": "fixed", "alpha_init": 0.75},
        lambda free, step: np.full_like(free, 0.75),
    ),
    "floor": (
        {"alpha": "floor", "alpha_init": 0.3, "alpha_floor": 0.3},
        lambda free, step: np.where(free < np.float32(0.3), np.float32(0.3), free),
    ),
    "ramp": (
        {"alpha": "ramp", "alpha_init": 0.2, "alpha_ramp": 0.25},  # 5.5 updates: 6
        lambda free, step: np.full_like(free, 0.2 + 0.8 * min(step / 6, 1)),
    ),
}


@pytest.fixture(scope="module")
def free_step(dataset):
    """One update without any rule; the rules differ in alpha alone, so one program serves all."""
    return jax.jit(partial(steps.train_step, weight_penalty=5e-4))


@pytest.mark.parametrize("rule", RULES)
def test_rule(dataset, free_step, rule):
    options, restated = RULES[rule]
    program = make_program(dataset, **options)
    state = program.init(jax.random.key(0), dataset.example(BATCH)["image"])
    after = methods.make_method("ubn", NormConfig(**options), methods.Context(updates=UPDATES))
    ruled = jax.jit(after.after_update)
    moved = 0.0
    for step, batch in enumerate(batches(dataset, 8), start=1):
        free, _ = free_step(state, batch)
        state = ruled(free)
        assert int(state.step) == step
        for path, alpha in alphas(state).items():
            expected = restated(alphas(free)[path], step)
            np.testing.assert_allclose(alpha, expected, rtol=1e-6)
            moved = max(moved, float(np.abs(alpha - alphas(free)[path]).max()))
        others = jax.tree.map(np.array_equal, free.opt_state, state.opt_state)
        assert all(jax.tree.leaves(others))
    assert moved > 1e-4  # The rule did something.


@pytest.mark.parametrize("conv", ["ws", "enorm"])
def test_rule_holds_with_other_weights(dataset, conv):
    """What stands behind the "+" comes on top of the rule of alpha."""
    method = methods.make_method(f"ubn+{conv}", NormConfig(alpha="fixed", alpha_init=0.75))
    config = TrainConfig(model=ModelConfig(blocks=(1,), widths=(4,)))
    model = make_model(config, f"ubn+{conv}", dataset.num_classes, methods.Context())
    init = partial(steps.create_state, model=model, tx=optax.sgd(0.1, momentum=0.9))
    state = jax.jit(init)(jax.random.key(0), dataset.example(1)["image"].astype(np.float32))
    moved = state.replace(
        params=jax.tree.map(lambda leaf: leaf + 0.25 * np.sign(leaf + 0.5), state.params)
    )
    ruled = jax.jit(method.after_update)(moved)
    for alpha in alphas(ruled).values():
        np.testing.assert_array_equal(alpha, np.full_like(alpha, 0.75))
    balanced = balance_state(moved) if conv == "enorm" else moved
    kernels = ruled.params["block_0"]["conv_0"], balanced.params["block_0"]["conv_0"]
    chex.assert_trees_all_close(*kernels, rtol=1e-6)
    if conv == "enorm":  # The balance did something.
        assert not np.allclose(kernels[0]["kernel"], moved.params["block_0"]["conv_0"]["kernel"])


def test_step_of_a_program_has_rule_and_penalty(dataset):
    weight = 0.25
    program = make_program(
        dataset, alpha="ramp", alpha_ramp=1.0, bound_penalty=weight, unit="sample"
    )
    state = program.init(jax.random.key(0), dataset.example(BATCH)["image"])
    before = jax.device_get(state.params)
    for step, batch in enumerate(batches(dataset, 2), start=1):
        kernels = float(steps.kernel_penalty(before))
        positions = dict.fromkeys(("stem_norm", "block_0/norm_0", "block_0/norm_1"), 64)
        positions["head_norm"] = 64
        bound = float(ics.unitized_bound_penalty(before, positions, unit="sample"))
        state, metrics = program.train_step(state, batch)
        rest = float(metrics["loss"] - metrics["cross_entropy"]) - 5e-4 * kernels
        assert rest == pytest.approx(weight * bound, rel=1e-4)
        before = jax.device_get(state.params)
        for alpha in alphas(state).values():
            np.testing.assert_allclose(alpha, step / UPDATES, rtol=1e-6)
    # (1 + (1 - 1/22) 16 ...) / 16 falls as alpha rises: 1 / sqrt(64 * 4) a + 1 - a.
    assert bound == pytest.approx(1 - (1 - 1 / 16) / UPDATES, rel=1e-5)


def test_without_a_rule_nothing_is_changed():
    method = methods.make_method("ubn")
    assert method.after_update is None
    assert method.penalty is None


def test_options_of_ubn():
    assert set(used_options("ubn", NormConfig())) >= {
        *("norm.alpha", "norm.bound_penalty", "norm.unit", "norm.alpha_init"),
    }
    assert "norm.alpha_floor" not in used_options("ubn", NormConfig())
    floor = NormConfig(alpha="floor", alpha_init=0.5)
    assert used_options("ubn", floor)["norm.alpha_floor"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": "free"}, r"`alpha` \(='free'\) is unknown; choose from trained, fixed, floor"),
        ({"alpha_floor": float("nan")}, r"`alpha_floor` \(=nan\) must be a finite number"),
        ({"alpha_ramp": 0.0}, r"`alpha_ramp` \(=0.0\) must be in \(0, 1\]"),
        ({"bound_penalty": -1.0}, r"`bound_penalty` \(=-1.0\) must be zero or a positive"),
        ({"alpha": "floor"}, r"`alpha_init` \(=0.0\) must be at least `alpha_floor` \(=0.5\)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        NormConfig(**options)


@pytest.mark.parametrize("options", [{"alpha": "fixed"}, {"bound_penalty": 0.1}])
def test_a_part_in_training_is_not_dropped_in_silence(options):
    with pytest.raises(ValueError, match=r"norm \(='ubn'\) replaces more .* part in its training"):
        methods.make_norm("ubn", **options)
