"""What cannot be converted is refused, with what was found and the way out."""

import inspect
import re

import flax.linen as nn
import jax.numpy as jnp
import pytest
from flax import nnx

import unitnorm_jax
from tests.nnx.models import Net
from unitnorm_jax.nnx import UnitizedBatchNorm, unitize


class Clash(nnx.BatchNorm):
    unit = "metre"


def test_a_name_that_is_taken():
    model = nnx.List([nnx.BatchNorm(4, rngs=nnx.Rngs(0)), Clash(4, rngs=nnx.Rngs(0))])
    with pytest.raises(ValueError, match=r"layer 1 \(Clash\).*'unit'"):
        unitize(model)
    assert type(model[0]) is nnx.BatchNorm  # all or none


def test_select_errors():
    with pytest.raises(
        ValueError, match=r"`select` .*takes no layer.*blocks/2/norm.*stem/layers/1"
    ):
        unitize(Net(nnx.Rngs(0)), select=nnx.PathContains("nowhere"))
    with pytest.raises(ValueError, match=r"`select` .*lambda path, layer"):
        unitize(Net(nnx.Rngs(0)), select=lambda layer: True)


def test_nothing_to_convert():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.LayerNorm(4, rngs=rngs))
    with pytest.raises(ValueError, match=r"nnx\.BatchNorm; its modules are LayerNorm.*Sequential"):
        unitize(model)
    for wrong in (3, jnp.ones(3), [], {"a": 1}, Net):
        with pytest.raises(ValueError, match=re.escape(f"(={wrong!r:.80})")):
            unitize(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "samples"}, r"`unit` \(='samples'\)"),
        ({"sample_axis": "q"}, r"`sample_axis` \(='q'\) must be an integer"),
        ({"bessel_correction": 3}, r"`bessel_correction` \(=3\) must be True or False"),
        ({"alpha_init": 0.5}, r"`alpha_init` \(=0.5\) must be an initializer"),
    ],
)
def test_bad_options_leave_the_model_as_it_was(options, message):
    model = Net(nnx.Rngs(0))
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(unitize)(model, **options)
    unitize(model)


def test_already_unitized():
    model = unitize(Net(nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"already: 4 layers.*stem/layers/1.*none is an nnx"):
        unitize(model)


def test_linen_modules():
    with pytest.raises(ValueError, match=r"\(BatchNorm\).*unitnorm_jax\.linen\.unitize"):
        unitize(nn.BatchNorm())
    rngs = nnx.Rngs(0)
    wrapped = nnx.bridge.ToNNX(nn.BatchNorm(use_running_average=True), rngs=rngs)
    with pytest.raises(ValueError, match=r"ToNNX\(BatchNorm\).*wrap unitnorm_jax.linen.unitize"):
        unitize(wrapped)  # nothing else, and not known to have statistics
    wrapped.lazy_init(jnp.ones((2, 3)))
    both = nnx.List([wrapped, nnx.BatchNorm(4, rngs=rngs)])
    with pytest.raises(ValueError, match=r"ToNNX\(BatchNorm\) at 0 .*Wrap unitnorm.*`select`"):
        unitize(both)
    assert type(unitize(both, select=nnx.BatchNorm)[1]) is UnitizedBatchNorm


def test_one_name_for_both():
    """What is neither a linen nor an nnx module."""
    for wrong in (3, [Net(nnx.Rngs(0))], Net, nn.BatchNorm):
        with pytest.raises(ValueError, match=re.escape(f"(={wrong!r:.80})")):
            unitnorm_jax.unitize(wrong)
