"""Models whose outputs cannot be taken: a ValueError that says what to do."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax import ics

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


def trace(model, mode="eval", variables=None, layers=None, **options):
    """All of a probe but the compilation."""
    if variables is None:
        variables = model.init(jax.random.key(0), X)
    probe = ics.ICSProbe(model, X, layers, mode=mode, method="pairing", **options)
    return jax.eval_shape(probe._both_sides, variables, variables, probe._args, None)


class Branches(nn.Module):
    switch: bool
    both: bool

    @nn.compact
    def __call__(self, x):
        norm = nn.LayerNorm(name="norm")
        x = norm(nn.Dense(4)(x))
        branches = [lambda m, x: m(x), lambda m, x: 2 * m(x) if self.both else x]
        if self.switch:
            return nn.switch(1, branches, norm, x)
        return nn.cond(x.sum() > 0, *branches, norm, x)


@pytest.mark.parametrize("switch", [True, False])
def test_conditionals(switch):
    layers = [(i.layer, i.call) for i in trace(Branches(switch, both=True)).infos]
    assert layers == [("norm", 0), ("norm", 1)]
    with pytest.raises(ValueError, match=r"every branch of nn.cond and nn.switch must .* 'norm'"):
        trace(Branches(switch, both=False))
    assert [i.layer for i in trace(Branches(switch, both=False), layers=nn.Dense).infos] == [
        "Dense_0"
    ]


class Norm(nn.Module):
    axis_name: object = None
    groups: object = None

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(
            use_running_average=False, axis_name=self.axis_name, axis_index_groups=self.groups
        )(x)


def test_mapped_axes():
    for names in ("a", ("a", "b")):
        (info,) = trace(Norm(names), "train", axis_name=names).infos
        assert (info.statistics, info.n, info.d) == ("batch", 6, 4)
    for model, given in ((Norm("a"), None), (Norm(("a", "b")), "a")):
        with pytest.raises(ValueError, match=r"mapped axis that does not exist .* as `axis_name`"):
            trace(model, "train", axis_name=given)
    with pytest.raises(ValueError, match=r"a copy of the model without groups \(axis_index_groups"):
        trace(Norm("a", [[0, 1], [2, 3]]), "train", axis_name="a")


def test_missing_collections():
    model = nn.Sequential([nn.Dense(4), nn.BatchNorm(use_running_average=True)])
    variables = model.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"lack a variable that the model reads.*batch_stats"):
        trace(model, variables={"params": variables["params"]})


def test_the_models_own_errors_are_its_own():
    class Wrong(nn.Module):
        @nn.compact
        def __call__(self, x):
            nn.LayerNorm(use_scale=False, use_bias=False)(x)
            raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        trace(Wrong(), variables={"params": {}})
