"""ResNet-50 and ResNet-101 against their published sizes."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import methods, models
from experiments.models.fields import with_fields

IMAGES = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)


def shapes(model):
    return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), IMAGES)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# Trainable parameters as torchvision publishes them, and channels that batch norm sees.
@pytest.mark.parametrize(
    ("make", "parameters", "channels"),
    [(models.resnet50, 25_557_032, 26_560), (models.resnet101, 44_549_160, 52_672)],
)
def test_published_parameter_counts(make, parameters, channels):
    variables = shapes(make())
    assert count(variables["params"]) == parameters
    assert count(variables["batch_stats"]) == 2 * channels


# Multiplications of a 224x224 image, 10^9, as torchvision publishes them for version 1.5 (with the
# stride in the first convolution of a block ResNet-50 would have 3.86).
def test_published_multiplications():
    model, published = models.resnet50(), 4.09
    jaxpr = jax.make_jaxpr(partial(model.apply, train=False))(shapes(model), IMAGES)
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            total += math.prod(equation.outvars[0].aval.shape) * math.prod(kernel[:3])
        elif equation.primitive.name == "dot_general":
            total += math.prod(equation.invars[1].aval.shape)
    assert total / 1e9 == pytest.approx(published, abs=0.006)


SMALL = {"num_classes": 10, "blocks": (2, 1), "widths": (4, 8)}


# These return predictions too, which only a network of their own passes on.
PREDICT = {"kalman", "kalman-published", "bn-slices"}


@pytest.mark.parametrize("norm", [*sorted({*methods.NORMS} - PREDICT), "gn+ws", "none+wn"])
def test_any_norm(norm):
    method = methods.make_method(norm, methods.NormConfig(rate=0.1))
    # (8 channels to a group of gn.)
    sizes = {**SMALL, "widths": (8, 16)}
    model = models.ResNet(**sizes, norm=method.norm, conv=method.conv, dense=method.dense)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    init = partial(model.init_with_output, train=False)
    logits, variables = jax.eval_shape(init, jax.random.key(0), images)
    assert logits.shape == (2, 10)
    assert variables["params"].keys() >= {"stem_conv", "block_0", "block_1", "block_2", "head"}


def test_norm_paths_are_the_norms_in_order_of_execution():
    model = models.ResNet(**SMALL)
    seen = []

    def note(next_fun, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
            seen.append(context.module.path)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(note):
        images = jnp.zeros((1, 32, 32, 3))
        jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
    assert model.norm_paths() == seen


def test_a_block_starts_as_its_shortcut():
    """The last norm of a block starts with scale 0."""
    block = models.resnet.Bottleneck(2, 1, norm=partial(nn.BatchNorm, use_running_average=False))
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    variables = jax.jit(block.init)(jax.random.key(0), x)
    y, _ = jax.jit(partial(block.apply, mutable=["batch_stats"]))(variables, x)
    np.testing.assert_array_equal(y, nn.relu(x))


def test_fields_that_a_module_has():
    zeros = nn.initializers.zeros
    assert with_fields(nn.BatchNorm, scale_init=zeros)().scale_init is zeros
    made = with_fields(methods.make_norm("gn", epsilon=0.5), dtype=jnp.bfloat16)()
    assert (made.epsilon, made.dtype) == (0.5, jnp.bfloat16)
    assert with_fields(methods.NoNorm, scale_init=zeros) is methods.NoNorm
