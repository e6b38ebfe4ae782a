"""`jax.export` with symbolic batch and image sizes: written, read back, called at several sizes."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import export

from tests.oracle import assert_close
from unitnorm_jax.functional import BatchStats, unitized_batch_norm
from unitnorm_jax.linen import UnitizedBatchNorm

CHANNELS = 6
STATS = BatchStats(mean=jnp.linspace(-1, 1, CHANNELS), var=jnp.linspace(1, 2, CHANNELS))
ALPHA = jnp.linspace(0, 1, CHANNELS)
KERNEL = jax.random.normal(jax.random.key(0), (3, 3, CHANNELS, CHANNELS)) / 5


def written_and_read(run, *structs, **options):
    """The function as it comes out of a file."""
    return export.deserialize(export.export(jax.jit(run))(*structs).serialize(**options))


def symbolic(sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(export.symbolic_shape(sizes), dtype)


def halved(x):
    """A convolution whose image sizes are expressions, such as floordiv(h - 1, 2) + 1."""
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, KERNEL, (2, 2), "SAME", dimension_numbers=axes)


CASES = {
    "images": ("b, h, w, 6", [(3, 5, 4, 6), (64, 16, 16, 6)], {}),
    "after a convolution": ("b, h, w, 6", [(3, 5, 4, 6), (4, 8, 3, 6)], {"unit": "rms"}),
    "positions": ("b, h, w, 6", [(3, 5, 4, 6)], {"unit": "position"}),
    "kappa": ("b, h, 6", [(3, 5, 6)], {"unit": 0.3, "bessel_correction": True}),
    "dense": ("b, 6", [(3, 6), (1, 6)], {}),
    "channels first": ("b, 6, h, w", [(3, 6, 2, 5)], {"axis": 1}),
    "several sample axes": ("t, b, 6", [(4, 3, 6)], {"sample_axis": (0, 1)}),
    "one example": ("h, w, 6", [(4, 3, 6)], {"sample_axis": None}),
    "two passes": ("b, h, 6", [(3, 5, 6)], {"use_fast_variance": False}),
    "bfloat16": ("b, h, w, 6", [(8, 5, 4, 6)], {}),
    "integers": ("b, 6", [(9, 6)], {}),
    "mask": ("b, h, w, 6", [(3, 5, 4, 6)], {"unit": "sample"}),
}
DTYPES = {"bfloat16": jnp.bfloat16, "integers": jnp.int8}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_function(name, train):
    sizes, shapes, config = CASES[name]
    dtype = DTYPES.get(name, jnp.float32)

    @jax.jit
    def run(x, stats):
        x = halved(x) if name == "after a convolution" else x
        mask = x[..., :1] > 0 if name == "mask" else None
        options = config | {"mask": mask, "use_running_average": not train}

        def loss(alpha, x):
            y, new = unitized_batch_norm(x, stats, alpha, **options)
            return jnp.sum(y.astype(jnp.float32) ** 3), (y, new)

        if name == "integers":
            return loss(ALPHA, x)[1]
        return jax.grad(loss, (0, 1), has_aux=True)(ALPHA, x)

    read = written_and_read(run, symbolic(sizes, dtype), STATS)
    tol = 2e-2 if name == "bfloat16" else 1e-5
    for shape in shapes:
        x = (2 + 3 * jax.random.normal(jax.random.key(1), shape)).astype(dtype)
        jax.tree.map(functools.partial(assert_close, tol=tol), read.call(x, STATS), run(x, STATS))


def test_derivative_of_what_was_read():
    def run(x):
        return unitized_batch_norm(x, STATS, ALPHA, use_running_average=False)[0]

    read = written_and_read(run, symbolic("b, h, 6"), vjp_order=1)
    x = 2 + jax.random.normal(jax.random.key(1), (4, 3, 6))
    actual, desired = (jax.grad(lambda x, f=f: jnp.sum(f(x) ** 3))(x) for f in (read.call, run))
    assert_close(actual, desired, 1e-5)


def test_one_example_per_call_within():
    """At inference: JAX sums over no mapped axis of symbolic size."""

    def run(x):
        def one(x):
            options = {"sample_axis": None, "axis_name": "batch", "use_running_average": True}
            return unitized_batch_norm(x, STATS, ALPHA, **options)[0]

        return jax.vmap(one, axis_name="batch")(x)

    x = 2 + jax.random.normal(jax.random.key(1), (8, 6))
    assert_close(written_and_read(run, symbolic("b, 6")).call(x), run(x), 1e-5)


@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_module(train):
    layer = UnitizedBatchNorm(use_running_average=not train, unit="rms")
    x = jax.random.normal(jax.random.key(1), (3, 5, 4, 6))
    variables = layer.init(jax.random.key(0), x)
    variables["params"]["alpha"] += ALPHA

    def run(variables, x):
        return layer.apply(variables, x, mutable=["batch_stats"])

    read = written_and_read(run, variables, symbolic("b, h, w, 6"))
    jax.tree.map(
        functools.partial(assert_close, tol=1e-5), read.call(variables, x), run(variables, x)
    )
