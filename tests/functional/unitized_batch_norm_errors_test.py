"""Wrong arguments are refused at trace time, by name; degenerate ones give finite numbers."""

import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import layer
from tests.functional.unitized_batch_norm_test import each_unit, problem
from unitnorm_jax import functional


def of_shape(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


# As users call it: in tests, types are checked before the layer could.
unitized_batch_norm = inspect.unwrap(functional.unitized_batch_norm)
X, PER_CHANNEL = of_shape(4, 6, 3), of_shape(3)


def trace(x=X, alpha=PER_CHANNEL, mean=PER_CHANNEL, var=PER_CHANNEL, arrays=None, **config):
    """The layer, traced without values: every error must come out here."""

    def run(x, stats, alpha, arrays):
        return unitized_batch_norm(
            x, stats, alpha, **arrays, **({"use_running_average": False} | config)
        )

    return jax.eval_shape(run, x, functional.BatchStats(mean, var), alpha, arrays or {})


WRONG = {
    "no positions": (r"empty.*\(4, 0, 3\)", {"x": of_shape(4, 0, 3)}),
    "rank 1": (r"rank.*\(3,\).*sample_axis=None", {"x": of_shape(3)}),
    "rank 0": ("rank", {"x": of_shape()}),
    "unknown unit": ("unit", {"unit": "samples"}),
    "negative kappa": ("unit", {"unit": -0.5}),
    "infinite kappa": ("unit", {"unit": float("inf")}),
    "kappa NaN": ("unit", {"unit": float("nan")}),
    "negative epsilon": ("epsilon", {"epsilon": -1e-5}),
    "negative momentum": ("momentum", {"momentum": -0.1}),
    "momentum above one": ("momentum", {"momentum": 1.1}),
    "axis too large": ("axis", {"axis": 3}),
    "axis too small": ("axis", {"axis": -4}),
    "one axis of two": ("axis", {"axis": (1, 7)}),
    "axis twice": ("axis", {"axis": (2, -1)}),
    "sample_axis too large": ("sample_axis", {"sample_axis": 3}),
    "sample_axis is a feature": ("sample_axis", {"sample_axis": -1}),
    "sample_axis among features": (
        "sample_axis",
        {"axis": (0, 2), "alpha": of_shape(4, 3), "mean": of_shape(4, 3), "var": of_shape(4, 3)},
    ),
    "mask of another length": ("mask", {"arrays": {"mask": jax.ShapeDtypeStruct((4, 5, 1), bool)}}),
    "mask of more axes": ("mask", {"arrays": {"mask": jax.ShapeDtypeStruct((1, 4, 6, 3), bool)}}),
    "mask of fractions": ("mask", {"arrays": {"mask": of_shape(4, 6, 1)}}),
    "mask of letters": ("mask", {"mask": "abc"}),
    "mask of a list of fractions": ("mask", {"mask": [0.3, 1.0, 1.0]}),
    "complex": ("real", {"x": jax.ShapeDtypeStruct((4, 6, 3), jnp.complex64)}),
    "empty batch": ("empty", {"x": of_shape(0, 6, 3)}),
    "integer result": ("dtype", {"dtype": jnp.int32}),
    "complex result": ("dtype", {"dtype": jnp.complex64}),
    "no dtype": ("dtype", {"dtype": "abc"}),
    "axis a float": ("axis", {"axis": 1.0}),
    "axis None": ("axis", {"axis": None}),
    "axis a string": ("axis", {"axis": "channels"}),
    "axes of floats": ("axis", {"axis": (0.5,)}),
    "sample_axis twice": (r"sample_axis.*\(0, -3\).*each once", {"sample_axis": (0, -3)}),
    "no sample_axis": (r"sample_axis.*\(\).*at least one.*None", {"sample_axis": ()}),
    "sample axes with a feature": (r"sample_axis.*\(0, 2\).*feature", {"sample_axis": (0, 2)}),
    "one sample axis of two": (r"sample_axis.*7.*range", {"sample_axis": (0, 7)}),
    "one example of rank 0": (
        r"rank >= 1.*sample_axis.*None.*\(\)",
        {"x": of_shape(), "sample_axis": None},
    ),
    "one example, axis out of range": (
        "axis.*3.*range",
        {"x": of_shape(3), "axis": 3, "sample_axis": None},
    ),
    "one example and no batch": (
        r"sample_axis.*None.*\(3,\).*axis_name",
        {"x": of_shape(3), "sample_axis": None},
    ),
    "sample_axis a float": ("sample_axis.*tuple of integers", {"sample_axis": 0.0}),
    "sample_axis of floats": (r"sample_axis.*\(0\.0,\)", {"sample_axis": (0.0,)}),
    "groups that are none": ("groups", {"axis_name": "d", "axis_index_groups": [0, 1]}),
    "unit None": ("unit", {"unit": None}),
    "unit of an array": ("unit", {"unit": np.ones(3)}),
    "momentum a string": ("momentum", {"momentum": "fast"}),
    "momentum None": ("momentum", {"momentum": None}),
    "momentum NaN": ("momentum", {"momentum": float("nan")}),
    "epsilon None": ("epsilon", {"epsilon": None}),
    "epsilon infinite": ("epsilon", {"epsilon": float("inf")}),
    "alpha": ("alpha", {"alpha": of_shape(6)}),
    "alpha of rank 2": ("alpha", {"alpha": of_shape(1, 3)}),
    "scale": ("scale", {"arrays": {"scale": of_shape(4)}}),
    "bias": ("bias", {"arrays": {"bias": of_shape(4)}}),
    "stats": ("mean", {"mean": of_shape(1), "var": of_shape(1)}),
    "mean": ("mean", {"mean": of_shape(6)}),
    "var": ("var", {"var": of_shape(6)}),
}


@pytest.mark.parametrize(("match", "wrong"), WRONG.values(), ids=WRONG)
def test_wrong_arguments(match, wrong):
    trace()  # the same call without the mistake
    with pytest.raises(ValueError, match=match) as error:
        trace(**wrong)
    assert len(error.value.args) == 1  # a sentence: no comma made it a tuple
    assert len(str(error.value)) > 20


def test_a_traced_unit_is_refused():
    with pytest.raises(ValueError, match="constant"):
        jax.jit(lambda unit: trace(unit=unit))(0.5)


def test_the_message_quotes_the_value():
    with pytest.raises(ValueError, match="'samples'"):
        trace(unit="samples")
    with pytest.raises(ValueError, match=r"reference.*sample.*rms.*position"):
        trace(unit="samples")
    with pytest.raises(ValueError, match=r"1\.1"):
        trace(momentum=1.1)


@pytest.mark.parametrize("shape", [(4, 6, 0), (4, 0), (0, 0)])
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_without_channels_there_is_nothing_to_do(shape, train):
    """As `flax.linen.BatchNorm`, which returns the input."""
    none = jnp.zeros(0)
    stats = functional.BatchStats(none, none)
    x = jnp.zeros(shape, jnp.int8)
    y, new = functional.unitized_batch_norm(x, stats, none, use_running_average=not train)
    assert (y.shape, y.dtype) == (shape, jnp.float32)
    assert new is stats


DEGENERATE = {
    "constant channels": (np.full((4, 6, 3), 2.5), None),
    "one constant channel": (np.arange(72.0).reshape(4, 6, 3) * [1, 0, 1] + 3, None),
    "all zero": (np.zeros((4, 6, 3)), None),
    "one sample of zeros": (np.arange(72.0).reshape(4, 6, 3) * [[[0]], [[1]], [[2]], [[1]]], None),
    "one sample": (np.arange(18.0).reshape(1, 6, 3), None),
    "one position": (np.arange(12.0).reshape(4, 1, 3), None),
    "one value": (np.arange(3.0).reshape(1, 1, 3), None),
    "one channel": (np.arange(24.0).reshape(4, 6, 1), None),
    "a sample without valid positions": (
        np.arange(72.0).reshape(4, 6, 3),
        np.array([1, 0, 1, 1], bool)[:, None, None],
    ),
    "one valid position": (np.arange(72.0).reshape(4, 6, 3), np.arange(6)[:, None] == 2),
    "huge": (1e15 * np.arange(72.0).reshape(4, 6, 3), None),
    "minute": (1e-30 * np.arange(72.0).reshape(4, 6, 3), None),
}


@pytest.mark.parametrize("unit", ["reference", "position"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
@pytest.mark.parametrize(("x", "mask"), DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_inputs_give_finite_numbers(x, mask, train, unit):
    args = problem(x.shape) | {"x": x, "mask": mask}
    out = layer.value_and_grads(**args, use_running_average=not train, unit=unit)
    chex.assert_tree_all_finite(out)


# Sums of the first three are exact. That of 1e-3 is not: the mean is off by a rounding, which
# 1 / sqrt(epsilon) multiplies twice, in xhat and in the norm.
@each_unit
@pytest.mark.parametrize(
    ("constant", "atol"), [(0.0, 1e-6), (2.5, 1e-6), (-1e4, 1e-6), (1e-3, 2**-22 * 1e-3 / 1e-5)]
)
def test_constant_channels_give_the_bias(constant, atol, unit):
    args = problem((4, 6, 3)) | {"x": np.full((4, 6, 3), constant)}
    y, *_ = layer.value_and_grads(**args, use_running_average=False, unit=unit)
    np.testing.assert_allclose(y, np.broadcast_to(args["params"]["bias"], y.shape), atol=atol)
