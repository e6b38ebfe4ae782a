"""What `unitize` refuses, and what it says: at once, at `init` and at `apply`."""

import inspect
from typing import Any

import flax.linen as nn
import jax
import pytest
from flax import errors, nnx

from tests.linen.unitized_models import Net
from unitnorm_jax.linen import UnitizedBatchNorm, add_alpha, unitize, unitized_layers

KEY = jax.random.key(0)
X = 2 + jax.random.normal(jax.random.key(1), (8, 3))


class OwnCall(nn.BatchNorm):
    """As `BatchRenorm` and others are made."""

    @nn.compact
    def __call__(self, x, use_running_average=None):
        return 2 * super().__call__(x, use_running_average)


class Field(nn.Module):
    inner: Any

    def __call__(self, x):
        return self.inner(x)


def no_norm(**fields):
    del fields
    return nn.LayerNorm()


NOT_CONVERTED = [
    (Net(no_norm), {}, r"it called no nn.BatchNorm, but Dense, LayerNorm, Net\. Give"),
    (Net(UnitizedBatchNorm), {}, r"first: it is a UnitizedBatchNorm already; (inner/)?last: it is"),
    (Net(OwnCall), {}, r"first: it has a `__call__` of its own"),
    (
        Net(),
        {"select": lambda bn: False},
        r"first: `select` leaves it out; (inner/)?last: `select`",
    ),
]


@pytest.mark.parametrize(("model", "options", "message"), NOT_CONVERTED)
def test_nothing_to_convert(model, options, message):
    """At `init`, at `apply` of a restored checkpoint, and within another module."""
    variables, unitized = model.init(KEY, X), unitize(model, **options)
    match = r"`model` \(=Net\) has no layer to unitize: .*" + message
    for call in (
        lambda: unitized.init(KEY, X),
        lambda: unitized.apply(variables, X, train=False),
        lambda: unitized.bind(variables)(X, train=False),
        lambda: Field(unitized).init(KEY, X),
    ):
        with pytest.raises(ValueError, match=match):
            call()
    assert not any(layer.converted for layer in unitized_layers(unitized, X))


def test_variables_of_the_model_as_written():
    variables = Net().init(KEY, X)
    with pytest.raises(ValueError, match=r"no `alpha` at first: .*add_alpha\(variables\)"):
        unitize(Net()).apply(variables, X, train=False)
    unitize(Net()).apply(add_alpha(variables), X, train=False)
    bare = nn.BatchNorm(use_running_average=True, use_scale=False, use_bias=False)
    with pytest.raises(ValueError, match=r"no `alpha` at its top"):
        unitize(bare).apply(bare.init(KEY, X), X)


def test_errors_of_flax_come_through():
    layer = nn.BatchNorm(use_running_average=True)
    stats = {"batch_stats": layer.init(KEY, X)["batch_stats"]}
    with pytest.raises(errors.ScopeCollectionNotFound, match=r"access .scale"):
        unitize(layer).apply(stats, X)
    with pytest.raises(
        errors.CallCompactUnboundModuleError, match=r"Can't call compact methods on unbound modules"
    ):
        unitize(Net())(X)


class NnxModel(nnx.Module):
    pass


class Unhashable:
    __hash__ = None

    def __call__(self, layer):
        return True


BAD_MODELS = [
    (Net, r"`model` \(=Net\) is a class; give a module, such as unitize\(Net\(...\)\)"),
    (NnxModel(), r"`model` \(=NnxModel\) is a module of flax.nnx; use unitnorm_jax.nnx.unitize"),
    (unitize(Net()), r"`model` \(=Net\) is unitized already"),
    (UnitizedBatchNorm(), r"`model` \(=UnitizedBatchNorm\) is a UnitizedBatchNorm: it needs no"),
    (3, r"`model` \(=3\) must be a module of flax.linen"),
    (Net().bind({}), r"`model` \(=Net\) is bound to variables: unitize first, then bind"),
]


@pytest.mark.parametrize(("model", "message"), BAD_MODELS, ids=lambda value: str(value)[:20])
def test_bad_models(model, message):
    with pytest.raises(ValueError, match=message):
        unitize(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"momentum": 0.9},
            r"`momentum` \(=0.9\) is no option of `unitize`; there are unit, alpha_",
        ),
        ({"unit": "samples"}, r"`unit` \(='samples'\) must be one of 'reference'"),
        ({"unit": -1.0}, r"`unit` \(=-1.0\) must be one of"),
        ({"alpha_init": 0.5}, r"`alpha_init` \(=0.5\) must be an initializer"),
        ({"bessel_correction": "yes"}, r"`bessel_correction` \(='yes'\) must be True or False"),
        ({"sample_axis": "first"}, r"`sample_axis` \(='first'\) must be an integer"),
        ({"sample_axis": 0.5}, r"`sample_axis` \(=0.5\) must be an integer"),
        ({"select": "first"}, r"`select` \(='first'\) must be a function of a bound nn.BatchNorm"),
        ({"select": lambda path, layer: True}, r"`select` .* one argument, the bound nn.BatchNorm"),
        ({"select": Unhashable()}, r"`select` .* must have a hash, as functions do"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(unitize)(Net(), **options)


def test_layers_of_a_model_that_is_not_unitized():
    with pytest.raises(ValueError, match=r"`model` \(=Net\) is not unitized: give unitize\(model"):
        unitized_layers(Net(), X)
