"""bfloat16 activations; parameters, statistics and alpha stay float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config.experiment import ModelConfig
from tests.experiments.training.parallel import job


def dtypes(tree):
    return {leaf.dtype for leaf in jax.tree.leaves(tree)}


@pytest.mark.parametrize("norm", ["bn", "ubn", "bcn-micro", "ln+ws", "none+wn", "normprop"])
def test_activations_are_bfloat16_and_the_state_is_float32(norm):
    config = job.configure(num_devices=1, precision="bfloat16")
    # Two stages: the second has a shortcut with a convolution of its own.
    config = dataclasses.replace(config, model=ModelConfig(blocks=(1, 1), widths=(8, 16)))
    program = job.make_program(config, norm)
    state = jax.eval_shape(program.init, jax.random.key(0), job.IMAGES[0])
    batch = {"image": job.IMAGES[0], "label": job.LABELS[0]}
    step = jax.make_jaxpr(program.train_step.function, return_shape=True)
    jaxpr, (after, metrics) = step(state, batch)
    for tree in (state.params, after.params, after.batch_stats, after.opt_state[0], metrics):
        assert dtypes(tree) <= {jnp.dtype("float32")}
    assert ("alpha" in str(jax.tree.structure(after.params))) == (norm == "ubn")
    convolutions = [line for line in str(jaxpr).splitlines() if "conv_general_dilated[" in line]
    assert convolutions
    assert all(":bf16[" in line.split("=")[0] for line in convolutions), convolutions


def test_bfloat16_on_eight_devices_is_close_to_float32_on_one():
    plain = job.one_device("ubn")
    mixed = job.run(job.configure(parallel="shard_map", precision="bfloat16"), "ubn")
    assert mixed.keys() == plain.keys()
    # bfloat16 has 8 bits: an operation is off by up to 0.4 %, a gradient by a few times that of the
    # largest. (Accuracies may change: an image on the edge falls to the other side.)
    groups = ("gradients", "params", "batch_stats", "['loss']", "grad_norm")
    for group in groups:
        names = [name for name in plain if group in name]
        scale = max(np.abs(plain[name]).max() for name in names)
        for name in names:
            np.testing.assert_allclose(mixed[name], plain[name], atol=0.02 * scale, err_msg=name)
    differs = [np.abs(mixed[name] - value).max() for name, value in plain.items()]
    assert max(differs) > 1e-5
