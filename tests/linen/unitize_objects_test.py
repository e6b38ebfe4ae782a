"""`unitize` of modules as objects: copies, modules around them, other interceptors."""

import copy
import pickle
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.linen.unitized_models import MODELS, Net
from unitnorm_jax.linen import BatchNorm, UnitizedBatchNorm, unitize, unitized_layers

KEY = jax.random.key(0)
X = 2 + jax.random.normal(jax.random.key(1), (8, 3))
OPTIONS = {"unit": "rms", "alpha_init": nn.initializers.ones}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def by_hand(**fields):
    return BatchNorm(**fields, **OPTIONS)


def first(layer):
    """A `select` that has a name in a module."""
    return layer.path[-1] == "first"


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m)), nn.Module.copy],
    ids=["deepcopy", "copy", "pickle", "Module.copy"],
)
@pytest.mark.parametrize("select", [None, first])
def test_copies(copied, select):
    model = unitize(Net(), select=select, **OPTIONS)
    other = copied(model)
    assert other == model
    assert type(other) is type(model)
    assert hash(other) == hash(model)
    assert isinstance(other, Net)
    variables = model.init(KEY, X)
    same(other.init(KEY, X), variables)
    same(other.apply(variables, X, train=False), model.apply(variables, X, train=False))


def test_select_sees_path_and_fields():
    model = unitize(Net(), select=first, **OPTIONS)
    params = model.init(KEY, X)["params"]
    assert "alpha" in params["first"]
    assert "alpha" not in params["last"]
    seen = {}

    def select(layer):
        seen[layer.path] = (type(layer), layer.use_running_average, layer.momentum)
        return True

    unitize(Net(), select=select).init(KEY, X)
    assert seen == dict.fromkeys([("first",), ("last",)], (nn.BatchNorm, False, 0.99))
    assert unitized_layers(model, X) == [
        ("first", True, ""),
        ("last", False, "BatchNorm: `select` leaves it out"),
    ]


def test_a_layer_itself():
    layer = nn.BatchNorm(use_running_average=False, momentum=0.5, use_bias=False)
    ours = BatchNorm(use_running_average=False, momentum=0.5, use_bias=False, **OPTIONS)
    model = unitize(layer, **OPTIONS)
    variables = ours.init(KEY, X)
    same(model.init(KEY, X), variables)
    same(model.apply(variables, X, mutable=["batch_stats"]),
         ours.apply(variables, X, mutable=["batch_stats"]))  # fmt: skip
    same(model.bind(variables, mutable=["batch_stats"])(X),
         ours.bind(variables, mutable=["batch_stats"])(X))  # fmt: skip
    assert unitized_layers(model, X) == [("", True, "")]


class InSetup(nn.Module):
    inner: Any

    def setup(self):
        self.made = self.inner()
        self.head = nn.BatchNorm(use_running_average=True)  # not of the unitized model

    def __call__(self, x):
        return self.head(self.made(x))


class InCompact(nn.Module):
    inner: Any

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True, name="head")(self.inner()(x))


class Field(nn.Module):
    inner: Any

    def __call__(self, x):
        return self.inner(x)


@pytest.mark.parametrize("outer", [InSetup, InCompact])
def test_within_another_module(outer):
    """Whose own layers are left alone."""
    model, hand = outer(lambda: unitize(Net(), **OPTIONS)), outer(lambda: Net(by_hand))
    variables = hand.init(KEY, X)
    same(model.init(KEY, X), variables)
    assert "alpha" not in variables["params"]["head"]
    same(*(m.apply(variables, X, mutable=["batch_stats"]) for m in (model, hand)))


def test_as_a_field_of_another_module():
    model, hand = Field(unitize(Net(), **OPTIONS)), Field(Net(by_hand))
    variables = hand.init(KEY, X)
    same(model.init(KEY, X), variables)
    same(*(m.apply(variables, X, mutable=["batch_stats"]) for m in (model, hand)))
    outer = unitize(model, unit="sample")
    why = "BatchNorm: a `unitize` within the model has made it"
    assert unitized_layers(outer, X)[0] == ("inner/first", False, why)
    with pytest.raises(ValueError, match=r"inner/first: a `unitize` within the model has made it"):
        outer.init(KEY, X)


def test_inner_options_hold():
    model = unitize(InCompact(lambda: unitize(Net(), select=first, unit="rms")), unit="sample")
    variables = model.init(KEY, X)
    assert "alpha" in variables["params"]["head"]
    assert "alpha" in variables["params"]["Net_0"]["first"]
    assert "alpha" not in variables["params"]["Net_0"]["last"]
    moved = jax.tree.map(lambda leaf: leaf + 0.5, variables)
    y = model.apply(moved, X, mutable=["batch_stats"])[0]
    inner = {kind: moved[kind]["Net_0"] for kind in ("params", "batch_stats")}
    x, _ = unitize(Net(), select=first, unit="rms").apply(inner, X, mutable=["batch_stats"])
    head = BatchNorm(use_running_average=True, unit="sample")
    expected = head.apply({kind: moved[kind]["head"] for kind in ("params", "batch_stats")}, x)
    same(y, expected)


class Teacher(nn.Module):
    @nn.compact
    def __call__(self, x):
        variables = Net(parent=None).init(KEY, x)
        target = Net(parent=None).apply(variables, x, train=False)
        return nn.BatchNorm(use_running_average=False)(x), target


def test_a_model_that_is_applied_within_is_left_alone():
    (_, target), variables = unitize(Teacher(), **OPTIONS).init_with_output(KEY, X)
    same(target, Net().apply(Net().init(KEY, X), X, train=False))
    assert "alpha" in variables["params"]["BatchNorm_0"]


class OwnCall(nn.BatchNorm):
    """As `BatchRenorm` and others are made."""

    @nn.compact
    def __call__(self, x, use_running_average=None):
        return 2 * super().__call__(x, use_running_average)


class OwnDefaults(nn.BatchNorm):
    momentum: float = 0.5

    def param(self, name, *args, **kwargs):
        return super().param("my_" + name, *args, **kwargs)


class Whitening(nn.Module):
    use_running_average: bool = False

    @nn.compact
    def __call__(self, x):
        self.variable("batch_stats", "cov", jnp.zeros, (3, 3))
        return x


class Many(nn.Module):
    @nn.compact
    def __call__(self, x):
        for kind in (nn.BatchNorm, OwnCall, OwnDefaults, Whitening, UnitizedBatchNorm):
            x = kind(use_running_average=False)(x)
        return nn.LayerNorm()(x)


def test_subclasses():
    model = unitize(Many(), **OPTIONS)
    variables = model.init(KEY, X)
    params = variables["params"]
    assert set(params["BatchNorm_0"]) == {"scale", "bias", "alpha"}
    assert set(params["OwnCall_0"]) == {"scale", "bias"}
    assert set(params["OwnDefaults_0"]) == {"my_scale", "my_bias", "my_alpha"}
    assert unitized_layers(model, X) == [
        ("BatchNorm_0", True, ""),
        ("OwnCall_0", False, "OwnCall: it has a `__call__` of its own"),
        ("OwnDefaults_0", True, ""),
        ("Whitening_0", False, "Whitening: it is no nn.BatchNorm"),
        ("UnitizedBatchNorm_0", False, "UnitizedBatchNorm: it is a UnitizedBatchNorm already"),
    ]
    _, new = model.apply(variables, X, mutable=["batch_stats"])
    mean = new["batch_stats"]["OwnDefaults_0"]["mean"]  # momentum 0.5, of what OwnCall returns
    assert mean.shape == (3,)


def test_other_interceptors_see_each_layer_once_and_as_it_is():
    """Those entered around the call and those within; nothing is left behind by an error."""
    calls = []

    def see(next_fun, args, kwargs, context):
        if context.method_name == "__call__":
            calls.append((type(context.module).__name__, isinstance(context.module, BatchNorm)))
        return next_fun(*args, **kwargs)

    model = unitize(Net(), **OPTIONS)
    with nn.intercept_methods(see):
        variables = model.init(KEY, X)
        assert len(nn.module._global_interceptor_stack) == 1
        with pytest.raises(TypeError, match="train"):
            model.apply(variables, X, trains=False)
        assert len(nn.module._global_interceptor_stack) == 1
    assert calls.pop() == ("Net", False)
    assert calls == [("Net", False), ("Dense", False), ("BatchNorm", True), ("BatchNorm", True)]
    assert len(nn.module._global_interceptor_stack) == 0


def test_every_model_of_the_table_has_a_name_that_stays():
    for build in MODELS.values():
        model = build(nn.BatchNorm)
        assert type(unitize(model)).__name__ == type(model).__name__
        assert repr(unitize(model)) == repr(model)
