"""The module: a drop-in for `flax.linen.BatchNorm` that calls the function and stores."""

import dataclasses
import functools

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracle import assert_close
from unitnorm_jax import functional
from unitnorm_jax.linen import UnitizedBatchNorm

OWN_FIELDS = {
    "unit": "reference",
    "alpha_init": nn.initializers.zeros,
    "bessel_correction": False,
    "sample_axis": 0,
}
X = jax.random.normal(jax.random.key(0), (4, 3, 2, 5)) + 2


def fields(module):
    return [f for f in dataclasses.fields(module) if f.name not in ("parent", "name")]


def test_fields_begin_with_those_of_batch_norm():
    theirs, ours = fields(nn.BatchNorm), fields(UnitizedBatchNorm)
    for a, b in zip(theirs, ours[: len(theirs)], strict=True):
        assert (b.name, b.default, b.kw_only) == (a.name, a.default, a.kw_only)
    own = {f.name: f.default for f in ours[len(theirs) :]}
    assert own == OWN_FIELDS
    assert list(own) == list(OWN_FIELDS)


def test_variables():
    variables = UnitizedBatchNorm().init(jax.random.key(0), X, use_running_average=False)
    ones, zeros = np.ones(5, np.float32), np.zeros(5, np.float32)
    expected = {
        "params": {"scale": ones, "bias": zeros, "alpha": zeros},
        "batch_stats": {"mean": zeros, "var": ones},
    }
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_parameters_without_scale_and_bias():
    module = UnitizedBatchNorm(use_scale=False, use_bias=False)
    variables = module.init(jax.random.key(0), X, use_running_average=False)
    assert variables["params"].keys() == {"alpha"}


@pytest.mark.parametrize("param_dtype", ["bfloat16", "float32"])
def test_dtypes(param_dtype):
    """Parameters have `param_dtype`, averages float32, the result what Flax's layer returns."""
    for dtype in (None, jnp.bfloat16, jnp.float16, jnp.float32):
        for x_dtype in (jnp.bfloat16, jnp.float32):
            results = []
            for layer in (UnitizedBatchNorm, nn.BatchNorm):
                module = layer(param_dtype=jnp.dtype(param_dtype), dtype=dtype)
                y, variables = module.init_with_output(
                    jax.random.key(0), X.astype(x_dtype), use_running_average=False
                )
                results.append(y.dtype)
                assert all(p.dtype == param_dtype for p in variables["params"].values())
                assert all(s.dtype == jnp.float32 for s in variables["batch_stats"].values())
            assert results[0] == results[1]


def test_initializers():
    module = UnitizedBatchNorm(
        alpha_init=nn.initializers.constant(0.25),
        scale_init=nn.initializers.constant(2),
        bias_init=nn.initializers.constant(3),
    )
    params = module.init(jax.random.key(0), X, use_running_average=False)["params"]
    assert {k: float(v[0]) for k, v in params.items()} == {"alpha": 0.25, "scale": 2, "bias": 3}


def test_use_running_average_from_field_or_call():
    init = functools.partial(UnitizedBatchNorm().init, jax.random.key(0), X)
    variables = init(use_running_average=True)
    by_call = UnitizedBatchNorm().apply(variables, X, use_running_average=True)
    by_field = UnitizedBatchNorm(use_running_average=True).apply(variables, X)
    positional = UnitizedBatchNorm().apply(variables, X, True)
    np.testing.assert_array_equal(by_call, by_field)
    np.testing.assert_array_equal(by_call, positional)
    with pytest.raises(ValueError, match="use_running_average"):
        UnitizedBatchNorm().apply(variables, X)
    with pytest.raises(ValueError, match="use_running_average"):
        UnitizedBatchNorm(use_running_average=True).apply(variables, X, use_running_average=True)


EVERY_FIELD = [
    {},
    {"axis": 1},
    {"axis": (1, -1)},
    {"momentum": 0.5},
    {"epsilon": 0.5},
    {"dtype": jnp.bfloat16},
    {"use_fast_variance": False},
    {"unit": "sample"},
    {"unit": "position"},
    {"unit": 0.7},
    {"bessel_correction": True},
    {"sample_axis": 1},
]


@pytest.mark.parametrize("options", EVERY_FIELD, ids=lambda o: "-".join(map(str, o.items())))
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_every_field_reaches_the_function(options, masked, train):
    module = UnitizedBatchNorm(alpha_init=nn.initializers.constant(0.4), **options)
    variables = module.init(jax.random.key(0), X, use_running_average=True)
    variables = jax.tree.map(lambda leaf: leaf + 0.3, variables)
    mask = jax.random.bernoulli(jax.random.key(1), 0.7, (4, 3, 2, 1)) if masked else None
    y, updated = module.apply(
        variables, X, use_running_average=not train, mask=mask, mutable=["batch_stats"]
    )
    expected, stats = functional.unitized_batch_norm(
        X,
        functional.BatchStats(**variables["batch_stats"]),
        **variables["params"],
        use_running_average=not train,
        mask=mask,
        **options,
    )
    assert y.dtype == expected.dtype
    assert_close(y, expected, 1e-6)
    for name, value in (stats._asdict() if train else variables["batch_stats"]).items():
        assert_close(updated["batch_stats"][name], value, 1e-6)


@pytest.mark.parametrize("options", EVERY_FIELD[1:], ids=lambda o: "-".join(map(str, o.items())))
def test_every_field_matters(options):
    """Otherwise the test above would pass with the field ignored on both sides."""

    def run(**options):
        module = UnitizedBatchNorm(alpha_init=nn.initializers.constant(0.4), **options)
        variables = module.init(jax.random.key(0), X, use_running_average=True)
        y, updated = module.apply(variables, X, use_running_average=False, mutable=["batch_stats"])
        return y.dtype, [np.asarray(leaf) for leaf in jax.tree.leaves((y, updated))]

    (dtype, leaves), (plain_dtype, plain) = run(**options), run()
    same = dtype == plain_dtype and all(
        a.shape == b.shape and np.allclose(a, b, atol=1e-4)
        for a, b in zip(leaves, plain, strict=True)
    )
    assert same == ("use_fast_variance" in options)


def test_averages_move_only_when_mutable():
    variables = UnitizedBatchNorm().init(jax.random.key(0), X, use_running_average=False)
    with pytest.raises(flax.errors.ModifyScopeVariableError):
        UnitizedBatchNorm().apply(variables, X, use_running_average=False)


def test_errors_come_through():
    with pytest.raises(ValueError, match="unit"):
        UnitizedBatchNorm(unit="samples").init(jax.random.key(0), X, use_running_average=False)
    with pytest.raises(ValueError, match="axis"):
        UnitizedBatchNorm(axis=7).init(jax.random.key(0), X, use_running_average=False)
