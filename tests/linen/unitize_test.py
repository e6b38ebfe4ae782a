"""`unitize`: bit for bit the model with `linen.BatchNorm` written in, under any transform."""

from functools import partial

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState
from jax import export

from tests.linen.unitized_models import MODELS
from tests.oracle import assert_close
from unitnorm_jax.ics import ICSProbe
from unitnorm_jax.linen import BatchNorm, UnitizedBatchNorm, add_alpha, unitize, unitized_layers

KEY = jax.random.key(0)
X = 2 + jax.random.normal(jax.random.key(1), (8, 3))
OPTIONS = {"unit": "rms", "alpha_init": nn.initializers.uniform(1.0), "bessel_correction": True}
same = partial(jax.tree.map, np.testing.assert_array_equal)


def three(name):
    """The model as written, swapped by hand, and unitized."""
    options = {} if name == "map_variables" else OPTIONS  # Flax takes no partial there
    by_hand = partial(BatchNorm, **options) if options else BatchNorm
    plain = MODELS[name](nn.BatchNorm)
    return plain, MODELS[name](by_hand), unitize(plain, **options)


@pytest.fixture(autouse=True)
def _interceptors_are_taken_off():
    yield
    assert len(nn.module._global_interceptor_stack) == 0


# The others take as long again, and differ in the transform alone: make test-slow.
FAST = ("compact", "setup", "jit layer", "jit block", "remat layer", "scan", "map_variables")


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
def test_equals_the_swap_by_hand(name):
    """Twice, after the model as written: programs that `nn.jit` keeps are not taken for others."""
    plain, hand, unitized = three(name)
    before = plain.init(KEY, X, True)
    y_before = plain.apply(before, X, False)
    variables = hand.init(KEY, X, True)

    def loss(params, model):
        y, stats = model.apply({**variables, "params": params}, X, True, mutable=["batch_stats"])
        return jnp.sum(y**3), stats

    expected = jax.grad(loss, has_aux=True)(variables["params"], hand)
    for _ in range(2):
        same(unitized.init(KEY, X, True), variables)
        same(unitized.apply(variables, X, False), hand.apply(variables, X, False))
        same(jax.grad(loss, has_aux=True)(variables["params"], unitized), expected)
    y = plain.apply(before, X, False)
    same(y, y_before)
    assert np.abs(y - unitized.apply(variables, X, False)).max() > 0.01 or name == "map_variables"


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_told(name):
    """And what a report or a capture of outputs says is what it says of the swap by hand."""
    _, hand, unitized = three(name)
    variables = hand.init(KEY, X, True)
    alphas = [p for p in flax.traverse_util.flatten_dict(variables["params"]) if p[-1] == "alpha"]
    layers = unitized_layers(unitized, jax.ShapeDtypeStruct(X.shape, X.dtype), True)
    assert {layer.path for layer in layers} == {"/".join(path[:-1]) for path in alphas}
    assert all(layer.converted and layer.reason == "" for layer in layers)
    _, fresh, again = three(name)  # a program that `nn.jit` keeps has no rows in a report
    assert again.tabulate(KEY, X, True) == fresh.tabulate(KEY, X, True)
    if name != "cond":  # which may not write in one of its branches
        captured = [
            m.apply(variables, X, False, capture_intermediates=True) for m in (unitized, hand)
        ]
        same(*captured)


def test_the_other_ways_in():
    plain, hand, unitized = three("compact")
    variables = hand.init(KEY, X, True)
    same(unitized.init_with_output(KEY, X, True), hand.init_with_output(KEY, X, True))
    struct = jax.ShapeDtypeStruct(X.shape, X.dtype)
    same(unitized.lazy_init(KEY, struct, True), variables)
    same(nn.init(lambda model, x: model(x), unitized)(KEY, X), variables)
    same(nn.apply(lambda model, x: model(x, False), unitized)(variables, X),
         hand.apply(variables, X, False))  # fmt: skip
    shapes = jax.eval_shape(unitized.init, KEY, X)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)
    assert shapes["params"]["BatchNorm_0"]["alpha"].shape == (4,)
    bound = unitized.bind(variables)
    same(bound(X, False), hand.apply(variables, X, False))
    module, again = bound.unbind()
    same(again, variables)
    same(module.apply(variables, X, False), hand.apply(variables, X, False))
    same(unitized.copy(features=5).init(KEY, X, True), hand.copy(features=5).init(KEY, X, True))
    same(unitized.clone(name="a").apply(variables, X, False), hand.apply(variables, X, False))
    same(plain.init(KEY, X, True)["batch_stats"], variables["batch_stats"])


def test_methods():
    """By name, as a function of the class as written, as a lambda, of a bound module's parts."""
    plain, hand, unitized = three("setup")
    variables = hand.init(KEY, X, True)
    expected = hand.apply(variables, X, False, method="encode")
    as_written = plain.apply({**variables}, X, False, method="encode")
    assert np.abs(as_written - expected).max() > 0.01
    for method in ("encode", type(plain).encode, unitized.encode, lambda m, *a: m.encoder(*a)):
        same(unitized.apply(variables, X, False, method=method), expected)
    bound = unitized.bind(variables)
    same(bound.encoder(X, False), expected)
    same(bound.encode(X, False), expected)
    x = bound.encoder.dense(X)
    same(nn.relu(bound.encoder.norm(x, use_running_average=True)), expected)
    encoder, part = unitized.bind(variables).encoder.unbind()
    same(encoder.apply(part, X, False), expected)
    assert unitized_layers(encoder, X, False) == [("norm", True, "")]
    (kept,) = three("layers in a field")[2].bind({}).unbind()[:1]
    assert [layer.path for layer in unitized_layers(kept, X)] == ["layers_1"]
    assert all(layer.converted for layer in unitized_layers(kept, X))
    layers = three("layers in a field")
    variables = layers[1].init(KEY, X, True)
    y = layers[2].bind(variables).layers[1](bound.encoder.dense(X), use_running_average=True)
    same(y, layers[1].bind(variables).layers[1](bound.encoder.dense(X), use_running_average=True))


def test_a_compact_method_of_the_class_as_written():
    plain, hand, unitized = three("compact")
    variables = hand.init(KEY, X, True)
    same(unitized.apply(variables, X, False, method=type(plain).__call__),
         hand.apply(variables, X, False))  # fmt: skip


def test_train_state_and_jit():
    _, hand, unitized = three("compact")
    variables = hand.init(KEY, X, True)

    @jax.jit
    def step(state):
        def loss(params):
            y, stats = state.apply_fn({**variables, "params": params}, X, mutable=["batch_stats"])
            return jnp.sum(y**2), stats

        grads, stats = jax.grad(loss, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads), stats

    tx = optax.sgd(0.1)
    states = [
        TrainState.create(apply_fn=m.apply, params=variables["params"], tx=tx)
        for m in (unitized, hand)
    ]
    (ours, stats), (theirs, expected) = map(step, states)
    same((ours.params, stats), (theirs.params, expected))
    assert np.abs(ours.params["last"]["alpha"] - variables["params"]["last"]["alpha"]).max() > 1e-4


def test_export():
    _, hand, unitized = three("compact")
    variables = hand.init(KEY, X, True)
    batch = jax.ShapeDtypeStruct(export.symbolic_shape("b, 3"), jnp.float32)
    exported = export.export(jax.jit(lambda v, x: unitized.apply(v, x, False)))(variables, batch)
    assert_close(exported.call(variables, X), hand.apply(variables, X, False), 1e-6)


def test_data_parallel():
    """`axis_name` is the model's own field of its layers."""
    build = MODELS["jit block"]
    unitized = unitize(build(partial(nn.BatchNorm, axis_name="d")), unit="rms")
    variables = unitized.init(KEY, X, True)
    parts = X.reshape(4, 2, 3)
    y, _ = jax.vmap(
        lambda x: unitized.apply(variables, x, True, mutable=["batch_stats"]), axis_name="d"
    )(parts)
    one = build(partial(BatchNorm, unit="rms"))
    expected, _ = one.apply(variables, X, True, mutable=["batch_stats"])
    assert_close(y.reshape(expected.shape), expected, 1e-5)


TRACES = []


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        TRACES.append(x.shape)
        return nn.BatchNorm(use_running_average=False)(nn.Dense(4)(x))


JitBlock = nn.jit(Block)  # as in many codebases: when the module is imported


class Outer(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        return JitBlock(name="block")(x)


def test_programs_of_a_jitted_class_are_not_mixed_up():
    models = {unit: unitize(Outer(), unit=unit) for unit in ("rms", "sample")}
    variables = models["rms"].init(KEY, X)
    variables = jax.tree.map(lambda leaf: leaf + 0.5, variables)
    results = []
    for _ in range(2):
        for model in (Outer(), *models.values()):
            results.append(model.apply(variables, X, mutable=["batch_stats"])[0])
    for i in range(3):
        same(results[i], results[i + 3])
        assert np.abs(results[i] - results[i - 1]).max() > 0.01


def test_a_kept_program_is_used_again():
    model = unitize(Outer(), unit="rms")
    variables = model.init(KEY, X)
    model.apply(variables, X, mutable=["batch_stats"])
    before = len(TRACES)
    unitize(Outer(), unit="rms").apply(variables, X, mutable=["batch_stats"])
    unitize(Outer(), unit="rms").init(KEY, X)
    assert len(TRACES) == before


def test_a_static_model_is_not_compiled_again():
    @partial(jax.jit, static_argnums=0)
    @chex.assert_max_traces(1)
    def run(model, variables):
        return model.apply(variables, X, False)

    plain, hand, first = three("compact")
    variables = hand.init(KEY, X, True)
    y = run(first, variables)
    second = unitize(plain, **OPTIONS)
    assert first == second
    assert hash(first) == hash(second)
    same(run(second, variables), y)
    assert first != unitize(plain, **{**OPTIONS, "unit": "sample"})
    assert first != unitize(plain.copy(features=5), **OPTIONS)
    assert unitize(plain) == unitize(plain, unit="reference", sample_axis=0)


def test_a_checkpoint_of_the_model_as_written():
    plain = MODELS["compact"](nn.BatchNorm)
    variables = plain.init(KEY, X, True)
    expected = plain.apply(variables, X, True, mutable=["batch_stats"])
    ours = unitize(plain).apply(add_alpha(variables), X, True, mutable=["batch_stats"])
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5), ours, expected)


@pytest.mark.parametrize(
    "name", ["compact", *(pytest.param(n, marks=pytest.mark.slow) for n in ("jit block", "setup"))]
)
def test_a_probe_sees_the_new_layers(name):
    _, hand, unitized = three(name)
    before = hand.init(KEY, X, True)
    after = jax.tree.map(lambda leaf: 1.2 * leaf + 0.1, before)
    reports = [
        ICSProbe(model, X, UnitizedBatchNorm, mode="train", method="pairing")(before, after)
        for model in (unitized, hand)
    ]
    ours, theirs = ([(layer.layer, layer.distance.value) for layer in r.layers] for r in reports)
    assert ours == theirs
    assert all(shift > 0.01 for _, shift in ours)
