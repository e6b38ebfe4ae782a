"""Whatever ``flax.linen.BatchNorm`` takes, ``UnitizedBatchNorm`` takes: at alpha 0 they agree."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from tests.oracle import assert_close
from unitnorm_jax.linen import UnitizedBatchNorm


def both(x, train=True, **fields):
    """Results and new statistics of the two layers, under jit."""
    out = []
    for kind in (nn.BatchNorm, UnitizedBatchNorm):
        layer = kind(use_running_average=not train, **fields)
        variables = layer.init(jax.random.key(0), x)
        out.append(
            jax.jit(lambda v, x, f=layer: f.apply(v, x, mutable=["batch_stats"]))(variables, x)
        )
    return out


@pytest.mark.parametrize("dtype", ["int32", "int8", "uint8", "bool"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"use_scale": False, "use_bias": False}, {"param_dtype": jnp.bfloat16}],
    ids=["", "no parameters", "bfloat16 parameters"],
)
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_integers(dtype, fields, train):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 100, (16, 3, 5)) % 128).astype(dtype)
    (expected, stats), (y, new) = both(x, train, **fields)
    assert y.dtype == expected.dtype
    assert_close(y, expected, 1e-2 if y.dtype == jnp.bfloat16 else 1e-4)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-4), new, stats)


def test_numpy_of_another_width():
    x = np.random.default_rng(0).standard_normal((8, 3))
    (expected, _), (y, _) = both(x)
    assert y.dtype == expected.dtype == jnp.float32
    assert_close(y, expected, 1e-5)


@pytest.mark.parametrize("shape", [(10_000, 3), (70_000, 3)])
def test_reductions_in_half_precision(shape):
    """Means are taken, not sums, which would not fit into float16."""
    x = (3 * np.random.default_rng(0).standard_normal(shape)).astype(np.float16)
    fields = {"force_float32_reductions": False, "param_dtype": jnp.float16}
    (expected, stats), (y, new) = both(jnp.asarray(x), **fields)
    assert_close(y, expected, 2e-3)
    jax.tree.map(lambda a, b: assert_close(a, b, 2e-3), new, stats)
    assert jax.tree.map(lambda a: a.dtype, new) == jax.tree.map(lambda a: a.dtype, stats)


@pytest.mark.parametrize("shape", [(0, 4, 3), (0, 3), (2, 0, 3)])
def test_an_empty_batch_at_inference(shape):
    layer = UnitizedBatchNorm(use_running_average=True)
    variables = layer.init(jax.random.key(0), jnp.ones((2, 3)))
    assert layer.apply(variables, jnp.zeros(shape)).shape == shape


@pytest.mark.parametrize(
    ("symbols", "shape"),
    [
        ("b, 5", (3, 5)),
        ("b, 4, 4, 6", (3, 4, 4, 6)),
        ("b, h, w, 6", (3, 2, 5, 6)),
        ("8, t, 6", (8, 3, 6)),
    ],
)
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
@pytest.mark.parametrize("unit", ["reference", "position"])
def test_export_with_symbolic_dimensions(symbols, shape, train, unit):
    layer = UnitizedBatchNorm(use_running_average=not train, unit=unit)
    x = jax.random.normal(jax.random.key(1), shape)
    variables = layer.init(jax.random.key(0), x)
    variables["params"]["alpha"] += 0.5

    def run(variables, x):
        return layer.apply(variables, x, mutable=["batch_stats"])

    struct = jax.ShapeDtypeStruct(export.symbolic_shape(symbols), jnp.float32)
    exported = export.export(jax.jit(run))(variables, struct)
    jax.tree.map(
        lambda a, b: assert_close(a, b, 1e-5), exported.call(variables, x), run(variables, x)
    )


def test_momentum_and_epsilon_may_be_traced():
    x = 2 + jax.random.normal(jax.random.key(0), (8, 2, 3))

    def run(momentum, epsilon):
        layer = UnitizedBatchNorm(use_running_average=False, momentum=momentum, epsilon=epsilon)
        return layer.init_with_output(jax.random.key(0), x), layer.apply(
            layer.init(jax.random.key(0), x), x, mutable=["batch_stats"]
        )

    jax.tree.map(lambda a, b: assert_close(a, b, 1e-6), jax.jit(run)(0.9, 1e-3), run(0.9, 1e-3))


GROUPS = [[0, 1, 2], [3, 4, 5, 6, 7]]


@pytest.mark.parametrize("shape", [(8, 4, 3), (8, 4, 2, 3)], ids=["dense", "sequences"])
@pytest.mark.parametrize("fast", [True, False], ids=["one pass", "two passes"])
def test_groups_of_unequal_size(shape, fast):
    """Each group of devices is one device with its batch."""
    x = 5 + jax.random.normal(jax.random.key(0), shape)
    fields = {"use_running_average": False, "use_fast_variance": fast, "bessel_correction": True}
    one = UnitizedBatchNorm(**fields)
    some = UnitizedBatchNorm(**fields, axis_name="d", axis_index_groups=GROUPS)
    variables = one.init(jax.random.key(0), x[0])
    y, new = jax.pmap(lambda x: some.apply(variables, x, mutable=["batch_stats"]), axis_name="d")(x)
    for group in map(np.asarray, GROUPS):
        batch = x[group].reshape(-1, *shape[2:])
        expected, stats = one.apply(variables, batch, mutable=["batch_stats"])
        assert_close(y[group].reshape(batch.shape), expected, 1e-5)
        for member in group:
            jax.tree.map(lambda a, b, i=member: assert_close(a[i], b, 1e-5), new, stats)
