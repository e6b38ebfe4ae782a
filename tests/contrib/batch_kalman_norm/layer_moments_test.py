"""Moments of the outputs of linen layers, against the layers themselves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from tests.oracle import assert_close
from unitnorm_jax.contrib.batch_kalman_norm import Moments, layer_moments


class Layered(nn.Module):
    layer: nn.Module

    @nn.compact
    def __call__(self, x):
        self.layer(x)
        rows = Moments(jnp.ones((2, x.shape[-1])), jnp.ones((2, x.shape[-1])))
        return layer_moments(self.layer, rows, x.shape)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv(4, (3, 2), strides=(1, 2), padding="VALID", use_bias=False),
        nn.Conv(4, (3, 3), padding=((2, 1), 0)),
    ],
)
def test_layer_moments_read_the_layer(layer):
    """The mean is linear, so the layer itself tells it for constant maps."""
    x = jnp.ones((2, 5, 4, 3))
    (out, variables) = Layered(layer).init_with_output(jax.random.key(0), x)
    inner = variables["params"]["layer"]
    maps = layer.apply({"params": inner}, x)
    assert_close(out.mean, maps.mean((1, 2)), 1e-5)
    squared = {k: v**2 if k == "kernel" else 0 * v for k, v in inner.items()}
    expected = layer.apply({"params": squared}, x).mean((1, 2)) + maps.var((1, 2))
    assert_close(out.var, expected, 1e-5)


def test_layer_moments_of_dense():
    out, variables = Layered(nn.Dense(4)).init_with_output(jax.random.key(0), jnp.ones((2, 3)))
    inner = variables["params"]["layer"]
    assert_close(out.mean[0], inner["kernel"].sum(0) + inner["bias"], 1e-6)
    assert_close(out.var[0], (inner["kernel"] ** 2).sum(0), 1e-6)


class OtherConv(nn.Conv):
    """A subclass may use other weights than those it stores."""


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv(3, (3, 3), feature_group_count=3),
        nn.Conv(3, (3, 3), kernel_dilation=2),
        nn.Conv(3, (3, 3), input_dilation=(2, 1), padding=1),
        nn.Conv(3, (3, 3), mask=jnp.ones((3, 3, 3, 3))),
        nn.Conv(3, (3, 3), padding="CIRCULAR"),
        nn.ConvTranspose(3, (3, 3)),
        nn.LayerNorm(),
        OtherConv(3, (3, 3)),
    ],
)
def test_layer_moments_of_other_layers(layer):
    with pytest.raises(ValueError, match=r"`layer` \(\w+\) must be an nn.Dense, or an nn.Conv"):
        Layered(layer).init(jax.random.key(0), jnp.ones((2, 5, 5, 3)))
