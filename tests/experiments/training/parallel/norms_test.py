"""What each method is told of the devices, and what it cannot do there."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from experiments.config.experiment import ModelConfig
from experiments.methods import NORMS, Context, NormConfig, make_method
from experiments.training.program import build_program, make_model
from tests.experiments.training.parallel import job

GROUPS = [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("norm", NORMS)
def test_devices_of_a_group_share_batch_statistics(norm):
    """A method with batch statistics takes them over the groups it is given; no other does."""
    context = Context("batch", schedule=lambda count: 0.1, axis_index_groups=GROUPS)
    # Without a layer before it there is no prediction.
    fields = {"first": True} if norm.startswith("kalman") else {}
    layer = make_method(norm, NormConfig(), context).norm(use_running_average=False, **fields)
    x = jnp.ones((8, 4, 2, 2, 8))
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = jax.eval_shape(layer.init, rngs, x[0])

    def apply(variables, x):
        return layer.apply(variables, x, mutable=["batch_stats"], rngs=rngs)

    mapped = jax.pmap(apply, "batch", in_axes=(None, 0))
    text = " ".join(str(jax.make_jaxpr(mapped)(variables, x)).split())
    shared = "axis_index_groups=((0, 1, 2, 3), (4, 5, 6, 7))" in text
    assert shared == ("batch_stats" in variables)
    assert ("psum" in text) == shared


def test_a_schedule_counts_updates_and_not_micro_batches():
    program = build_program(job.configure(accumulate=4), "bcn-micro", job.DATASET)
    rate = program.model.norm.keywords["rate"]
    for count in range(12):
        assert rate(jnp.float32(count)) == program.schedule(count // 4)


def test_a_method_with_a_network_of_its_own():
    config = dataclasses.replace(job.configure(), model=ModelConfig("resnet50"))
    message = (
        r"norm \(='normprop'\) brings a network .* `model.name` \(='resnet50'\) cannot be used"
    )
    with pytest.raises(ValueError, match=message):
        build_program(config, "normprop", job.DATASET)


@pytest.mark.parametrize(
    ("name", "norm", "of"),
    [
        ("preact", "ic", "norm 'ic', .* choose another norm"),
        ("preact", "kalman", "norm 'kalman', .* choose another norm"),
        ("preact", "bn-slices+ws", r"norm 'bn-slices\+ws', .* choose another norm"),
        ("resnet50", "bn", "'resnet50', .* choose another network"),
    ],
)
def test_a_network_that_cannot_be_without_skip_connections(name, norm, of):
    config = dataclasses.replace(job.configure(), model=ModelConfig(name, skip=False))
    with pytest.raises(ValueError, match=rf"`model.skip` \(=False\) cannot be used with {of}"):
        make_model(config, norm, 10, Context())


@pytest.mark.parametrize("norm", ["ubn+ws", "normprop"])
def test_without_skip_connections(norm):
    config = dataclasses.replace(job.configure(), model=ModelConfig(skip=False))
    assert make_model(config, norm, 10, Context()).add is None
