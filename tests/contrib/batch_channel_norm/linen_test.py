"""The modules fetch, call the functions and store; the rate is a constant, a schedule, or given."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.oracle import assert_close
from unitnorm_jax import functional
from unitnorm_jax.contrib.batch_channel_norm import BatchChannelNorm, batch_channel_norm
from unitnorm_jax.contrib.estimated_batch_norm import EstimatedBatchNorm, estimated_batch_norm

X = jax.random.normal(jax.random.key(0), (4, 3, 2, 6)) + 2
KEY = jax.random.key(0)


def moved(module, x=X):
    variables = module.init(KEY, x, use_running_average=True)
    return jax.tree.map(lambda leaf: leaf + 0.3, variables)


def test_variables():
    ones, zeros = np.ones(6, np.float32), np.zeros(6, np.float32)
    stats = {"mean": zeros, "var": ones}
    params = {"scale": ones, "bias": zeros}
    variables = EstimatedBatchNorm(rate=0.1).init(KEY, X, use_running_average=False)
    jax.tree.map(np.testing.assert_array_equal, variables, {"params": params, "batch_stats": stats})
    variables = BatchChannelNorm(num_groups=3).init(KEY, X, use_running_average=False)
    params |= {"group_scale": ones[:3], "group_bias": zeros[:3]}
    jax.tree.map(np.testing.assert_array_equal, variables, {"params": params, "batch_stats": stats})
    assert BatchChannelNorm().num_groups == 32


def test_initializers_and_missing_parameters():
    constant = nn.initializers.constant
    module = BatchChannelNorm(
        num_groups=2,
        scale_init=constant(2),
        bias_init=constant(3),
        group_scale_init=constant(4),
        group_bias_init=constant(5),
        param_dtype=jnp.bfloat16,
    )
    params = module.init(KEY, X, use_running_average=False)["params"]
    values = {"scale": 2, "bias": 3, "group_scale": 4, "group_bias": 5}
    assert {k: float(v[0]) for k, v in params.items()} == values
    assert all(v.dtype == jnp.bfloat16 for v in params.values())
    bare = BatchChannelNorm(num_groups=2, use_scale=False, use_bias=False)
    assert "params" not in bare.init(KEY, X, use_running_average=False)


FIELDS = [
    {},
    {"num_groups": 3},
    {"axis": 2, "num_groups": 1},
    {"momentum": 0.5},
    {"epsilon": 0.5},
    {"dtype": jnp.bfloat16},
    {"use_fast_variance": False},
    {"bessel_correction": True},
    {"sample_axis": 1},
    {"rate": 0.25},
]


def ids(options):
    return "-".join(map(str, options.items()))


@pytest.mark.slow
@pytest.mark.parametrize("options", FIELDS, ids=ids)
@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_every_field_reaches_the_function(options, train):
    options = {"num_groups": 2} | options
    module = BatchChannelNorm(**options)
    variables = moved(module)
    mask = jax.random.bernoulli(jax.random.key(1), 0.7, (4, 3, 2, 1))
    for m in (None, mask):
        y, updated = module.apply(
            variables, X, use_running_average=not train, mask=m, mutable=["batch_stats"]
        )
        expected, stats = batch_channel_norm(
            X,
            functional.BatchStats(**variables["batch_stats"]),
            **variables["params"],
            use_running_average=not train,
            mask=m,
            **options,
        )
        assert y.dtype == expected.dtype
        assert_close(y, expected, 1e-6)
        for name, value in (stats._asdict() if train else variables["batch_stats"]).items():
            assert_close(updated["batch_stats"][name], value, 1e-6)


@pytest.mark.parametrize("options", FIELDS[1:], ids=ids)
def test_every_field_matters(options):
    """Otherwise the test above would pass with the field ignored on both sides."""

    def run(options):
        module = BatchChannelNorm(**{"num_groups": 2} | options)
        y, updated = module.apply(
            moved(module), X, use_running_average=False, mutable=["batch_stats"]
        )
        return y.dtype, [np.asarray(leaf) for leaf in jax.tree.leaves((y, updated))]

    (dtype, leaves), (plain_dtype, plain) = run(options), run({})
    same = dtype == plain_dtype and all(
        a.shape == b.shape and np.allclose(a, b, atol=1e-4)
        for a, b in zip(leaves, plain, strict=True)
    )
    assert same == ("use_fast_variance" in options)


@pytest.mark.parametrize("options", [{"epsilon": 0.5}, {"axis": 1}, {"dtype": jnp.bfloat16}])
def test_fields_of_the_estimated_layer(options):
    module = EstimatedBatchNorm(rate=0.25, **options)
    variables = moved(module)
    y, updated = module.apply(variables, X, use_running_average=False, mutable=["batch_stats"])
    expected, stats = estimated_batch_norm(
        X,
        functional.BatchStats(**variables["batch_stats"]),
        **variables["params"],
        use_running_average=False,
        rate=0.25,
        **options,
    )
    assert y.dtype == expected.dtype
    assert_close(y, expected, 1e-6)
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-6), updated["batch_stats"], stats._asdict())
    default = EstimatedBatchNorm(rate=0.25)
    plain, _ = default.apply(moved(default), X, use_running_average=False, mutable=["batch_stats"])
    assert plain.dtype != y.dtype or np.abs(plain - y).max() > 1e-3


LAYERS = {
    "EstimatedBatchNorm": EstimatedBatchNorm,
    "BatchChannelNorm": lambda **fields: BatchChannelNorm(num_groups=2, **fields),
}
each = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


@each
def test_the_rate_may_be_the_learning_rate(make):
    """Update t moves the estimates by the schedule's value at t, counted from 0."""
    schedule = optax.linear_schedule(0.5, 0.1, 4)
    module = make(rate=schedule)
    variables = module.init(KEY, X, use_running_average=False)
    assert variables["batch_stats"]["count"] == 0
    expected = jnp.zeros(6)
    for update in range(3):
        _, updated = module.apply(variables, X, use_running_average=False, mutable=["batch_stats"])
        variables |= updated
        rate = schedule(update)
        expected = (1 - rate) * expected + rate * X.mean((0, 1, 2))
        assert_close(variables["batch_stats"]["mean"], expected, 1e-6)
        module.apply(variables, X, use_running_average=True)  # counts nothing
    assert variables["batch_stats"]["count"] == 3


@each
def test_the_rate_may_be_given_at_the_call(make):
    variables = make(rate=0.25).init(KEY, X, use_running_average=False)
    _, by_field = make(rate=0.25).apply(
        variables, X, use_running_average=False, mutable=["batch_stats"]
    )
    step = jax.jit(
        lambda rate: make().apply(
            variables, X, use_running_average=False, rate=rate, mutable=["batch_stats"]
        )[1]
    )
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-6), step(0.25), by_field)
    with pytest.raises(ValueError, match="`rate` is given as a field and at the call"):
        make(rate=0.1).apply(variables, X, use_running_average=False, rate=0.1)


def test_a_rate_is_needed_where_the_estimates_move():
    module = EstimatedBatchNorm()
    variables = module.init(KEY, X, use_running_average=False)
    module.apply(variables, X, use_running_average=True)
    with pytest.raises(ValueError, match=r"`rate` of EstimatedBatchNorm is missing; give"):
        module.apply(variables, X, use_running_average=False, mutable=["batch_stats"])


@each
def test_one_sample_of_one_position(make):
    """`init` works for any batch; training with batch statistics needs more than one value."""
    x = X[:1, 0, 0]
    module = make(rate=0.1)
    y, _ = module.apply(
        module.init(KEY, x, use_running_average=False), x, False, mutable=["batch_stats"]
    )
    assert np.abs(y).max() > 0.1
    plain = BatchChannelNorm(num_groups=2)
    variables = plain.init(KEY, x, use_running_average=False)
    with pytest.raises(ValueError, match="one value per channel"):
        plain.apply(variables, x, use_running_average=False, mutable=["batch_stats"])


@each
def test_averages_move_only_when_mutable(make):
    module = make(rate=0.1)
    variables = module.init(KEY, X, use_running_average=False)
    with pytest.raises(flax.errors.ModifyScopeVariableError):
        module.apply(variables, X, use_running_average=False)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"num_groups": 4}, r"`num_groups` \(=4\) must divide .* \(=6\): choose among 1, 2, 3, 6"),
        ({"num_groups": -1}, r"`num_groups` \(=-1\)"),
        ({"num_groups": 2, "axis": 7}, "`axis`"),
        ({"num_groups": 2, "rate": 2.0}, r"`rate` \(=2.0\) must be in"),
        ({"num_groups": 2, "momentum": -1.0}, "`momentum`"),
    ],
)
def test_errors_come_through(fields, match):
    with pytest.raises(ValueError, match=match):
        BatchChannelNorm(**fields).init(KEY, X, use_running_average=False)
