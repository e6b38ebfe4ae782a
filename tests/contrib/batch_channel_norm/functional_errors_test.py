"""Wrong arguments are refused at trace time, by name; degenerate ones give finite numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contrib.batch_channel_norm.functional_test import problem, run
from unitnorm_jax import functional
from unitnorm_jax.contrib.batch_channel_norm import batch_channel_norm
from unitnorm_jax.contrib.estimated_batch_norm import estimated_batch_norm
from unitnorm_jax.functional._numerics.axes import check_axis


def of_shape(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def trace(x=of_shape(4, 6, 8), mean=of_shape(8), var=of_shape(8), arrays=None, **config):  # noqa: B008
    def apply(x, stats, arrays):
        options = {"use_running_average": False, "num_groups": 4} | config
        return batch_channel_norm(x, stats, **arrays, **options)

    return jax.eval_shape(apply, x, functional.BatchStats(mean, var), arrays or {})


DENSE = {"mean": of_shape(8), "var": of_shape(8)}
WRONG = {
    "groups that do not divide": (
        r"`num_groups` \(=3\) must divide .* \(=8\): choose among 1, 2, 4, 8",
        {"num_groups": 3},
    ),
    "the paper's groups": (r"`num_groups` \(=32\) must divide", {"num_groups": 32}),
    "no groups": (r"`num_groups` \(=0\)", {"num_groups": 0}),
    "negative groups": (r"`num_groups` \(=-2\)", {"num_groups": -2}),
    "groups of one value": (
        r"`num_groups` \(=8\) leaves one value per sample and group .*\(4, 8\)",
        {"x": of_shape(4, 8), "num_groups": 8},
    ),
    "batch of one value": (
        r"shape \(1, 8\) has one value per channel.* `rate`",
        {"x": of_shape(1, 8)},
    ),
    "negative rate": (r"`rate` \(=-0.1\) must be in \[0, 1\]", {"rate": -0.1}),
    "rate above one": (r"`rate` \(=1.5\) must be in \[0, 1\]", {"rate": 1.5}),
    "rate NaN": (r"`rate` \(=nan\)", {"rate": float("nan")}),
    "negative epsilon": (r"`epsilon` \(=-1e-05\)", {"epsilon": -1e-5}),
    "momentum above one": (r"`momentum` \(=1.1\)", {"momentum": 1.1}),
    "rank 1": ("rank", {"x": of_shape(8)}),
    "axis": (r"`axis` \(=3\) is out of range", {"axis": 3}),
    "sample axis is the feature": ("`sample_axis`", {"sample_axis": -1}),
    "complex": ("must be real, not complex64", {"x": of_shape(4, 6, 8, dtype=jnp.complex64)}),
    "mean": (r"`mean` has shape \(6,\)", {"mean": of_shape(6)}),
    "var": (r"`var` has shape \(6,\)", {"var": of_shape(6)}),
    "scale": (r"`scale` has shape \(4,\)", {"arrays": {"scale": of_shape(4)}}),
    "bias": (r"`bias` has shape \(4,\)", {"arrays": {"bias": of_shape(4)}}),
    "group scale per channel": (
        r"`group_scale` has shape \(8,\), but must have one entry per group: \(4,\)",
        {"arrays": {"group_scale": of_shape(8)}},
    ),
    "group bias": (r"`group_bias` has shape \(1,\)", {"arrays": {"group_bias": of_shape(1)}}),
    "mask": ("`mask`", {"arrays": {"mask": of_shape(4, 5, 1, dtype=bool)}}),
}


@pytest.mark.parametrize(("match", "wrong"), WRONG.values(), ids=WRONG)
def test_wrong_arguments(match, wrong):
    trace()  # the same call without the mistake
    with pytest.raises(ValueError, match=match) as error:
        trace(**wrong)
    assert len(error.value.args) == 1


def test_several_feature_axes():
    with pytest.raises(ValueError, match=r"`axis` \(=\(1, 2\)\) must be one feature axis"):
        check_axis.__wrapped__((4, 6, 8), (1, 2))


def test_what_works_with_one_sample():
    trace(of_shape(1, 6, 8))  # several positions
    trace(of_shape(1, 8), rate=0.1)
    trace(of_shape(1, 8), use_running_average=True)


def test_estimates_refuse_the_same():
    x, stats = jnp.ones((2, 3)), functional.BatchStats(jnp.zeros(3), jnp.ones(3))
    for wrong, match in (
        ({"rate": -0.1}, r"`rate` \(=-0.1\) must be in \[0, 1\]"),
        ({"rate": 0.1, "epsilon": -1.0}, "`epsilon`"),
        ({"rate": 0.1, "axis": 2}, "`axis`"),
    ):
        with pytest.raises(ValueError, match=match):
            estimated_batch_norm(x, stats, use_running_average=False, **wrong)


DEGENERATE = {
    "constant channels": np.full((4, 6, 4), 2.5),
    "one constant channel": np.arange(96.0).reshape(4, 6, 4) * [1, 0, 1, 1] + 3,
    "zeros": np.zeros((4, 6, 4)),
    "one sample of zeros": np.arange(96.0).reshape(4, 6, 4) * [[[0]], [[1]], [[2]], [[1]]],
    "one sample": np.arange(24.0).reshape(1, 6, 4),
    "huge": 1e15 * np.arange(96.0).reshape(4, 6, 4),
    "minute": 1e-30 * np.arange(96.0).reshape(4, 6, 4),
}


@pytest.mark.parametrize("rate", [None, 0.5])
@pytest.mark.parametrize("x", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_inputs_give_finite_numbers(x, rate):
    args = problem(x.shape) | {"x": x}
    for mask in (None, np.arange(6)[:, None] == 2):
        out = run(**args, dtype="float32", mask=mask, rate=rate, use_running_average=False,
                  num_groups=2, dy=np.ones(x.shape))  # fmt: skip
        chex.assert_tree_all_finite(out)
