import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from unitnorm_jax import ics
from unitnorm_jax.linen import UnitizedBatchNorm


class Norms(nn.Module):
    @nn.compact
    def __call__(self, x):
        for norm in (
            nn.BatchNorm(use_running_average=True),
            UnitizedBatchNorm(use_running_average=True),
            nn.LayerNorm(),
            nn.RMSNorm(),
            nn.GroupNorm(2),
            nn.InstanceNorm(),
        ):
            x = norm(x)
        x = nn.WeightNorm(nn.Dense(4))(x)
        return nn.SpectralNorm(nn.Dense(4))(x, update_stats=False)


def selected(model, layers, *args):
    variables = model.init(jax.random.key(0), *args)
    wanted = ics.layer_filter(layers)
    return [y.layer for y in ics.layer_outputs(model, variables, args, {}, wanted=wanted)]


X = jnp.ones((2, 3, 4))


def test_every_normalization_of_outputs_is_found():
    assert selected(Norms(), None, X) == [
        "BatchNorm_0",
        "UnitizedBatchNorm_0",
        "LayerNorm_0",
        "RMSNorm_0",
        "GroupNorm_0",
        "InstanceNorm_0",
    ]


def test_other_filters():
    assert selected(Norms(), nn.BatchNorm, X) == ["BatchNorm_0"]
    assert selected(Norms(), "*BatchNorm_?", X) == ["BatchNorm_0", "UnitizedBatchNorm_0"]
    assert selected(Norms(), (nn.LayerNorm, "Group*"), X) == ["LayerNorm_0", "GroupNorm_0"]
    assert selected(Norms(), "", X) == [""]  # the model itself
    assert selected(Norms(), lambda m, name: isinstance(m, nn.RMSNorm), X) == ["RMSNorm_0"]


class Encoder(nn.Module):
    def setup(self):
        self.dense = nn.Dense(4)

    def encode(self, x):
        return self.dense(x)

    def __call__(self, x):
        return nn.relu(self.encode(x))


def test_predicates_see_every_method():
    assert selected(Encoder(), lambda m, name: name == "encode", X) == [".encode"]


@pytest.mark.parametrize("layers", [(), [], 3, int, nn.Dense(3)])
def test_bad_filters(layers):
    with pytest.raises(ValueError, match=r"must be a module class, a pattern of paths"):
        ics.layer_filter(layers)


def test_unbound_modules_have_no_statistics():
    assert not ics.is_normalization(nn.Dense(2))
    assert not ics.is_normalization(nn.LayerNorm(), "setup")
