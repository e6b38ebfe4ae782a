"""One example per call, and samples along several axes: the same as whole batches of samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracle import assert_close
from unitnorm_jax.functional import BatchStats, unitized_batch_norm
from unitnorm_jax.linen import UnitizedBatchNorm

CHANNELS = 5
STATS = BatchStats(mean=jnp.linspace(-1, 1, CHANNELS), var=jnp.linspace(1, 2, CHANNELS))
ALPHA = jnp.linspace(0, 1, CHANNELS)
UNITS = ["reference", "sample", "rms", "position", 0.3]


def inputs(*shape, mean=2.0):
    return mean + jax.random.normal(jax.random.key(0), (*shape, CHANNELS))


def mask_of(x):
    return jax.random.bernoulli(jax.random.key(1), 0.7, (*x.shape[:-1], 1))


def value_and_grads(layer, x, mask=None):
    """Output, new statistics, and gradients of a sum that weighs all outputs."""
    dy = jax.random.normal(jax.random.key(2), x.shape)

    @jax.jit
    def run(x, alpha, mask):
        def loss(x, alpha):
            y, stats = layer(x, alpha, mask)
            return jnp.sum(y * dy), (y, stats)

        grads, out = jax.grad(loss, (0, 1), has_aux=True)(x, alpha)
        return out, grads

    return run(x, ALPHA, mask)


def batched(sample_axis=0, **config):
    def layer(x, alpha, mask):
        options = {"use_running_average": False, "mask": mask, "sample_axis": sample_axis}
        return unitized_batch_norm(x, STATS, alpha, **options | config)

    return layer


def one_by_one(**config):
    """Each call has one example; the statistics that come out are those of the batch."""

    def layer(x, alpha, mask):
        def call(x, mask):
            return batched(None, axis_name="batch", **config)(x, alpha, mask)

        axes = 0, None if mask is None else 0
        return jax.vmap(call, axes, out_axes=(0, None), axis_name="batch")(x, mask)

    return layer


def assert_same(actual, desired, tol=2e-6):
    jax.tree.map(lambda a, b: assert_close(a, b, tol), actual, desired)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    ("shape", "masked"), [((6,), False), ((6, 4, 3), False), ((6, 4), True)], ids=str
)
def test_one_example_per_call(shape, masked, unit):
    x = inputs(*shape)
    mask = mask_of(x) if masked else None
    args = x, mask
    assert_same(
        value_and_grads(one_by_one(unit=unit), *args), value_and_grads(batched(unit=unit), *args)
    )


def test_one_example_per_call_at_inference_needs_no_axis():
    x = inputs(6)
    config = {"use_running_average": True, "unit": "rms"}
    alone = [batched(None, **config)(row, ALPHA, None)[0] for row in x]
    assert_close(jnp.stack(alone), batched(**config)(x, ALPHA, None)[0], 1e-6)
    x = inputs(6, 4)  # one sample of 6 x 4 positions, which is no batch of 6
    one = batched(None, **config)(x, ALPHA, None)[0]
    assert_close(one, batched(**config)(x[None], ALPHA, None)[0][0], 1e-6)
    assert np.abs(one - batched(**config)(x, ALPHA, None)[0]).max() > 0.01


def test_one_example_per_call_with_a_large_mean():
    """The branch that takes sums again is one branch for all examples, with one collective."""
    x = inputs(16, 4, mean=1e4)
    assert_same(value_and_grads(one_by_one(), x), value_and_grads(batched(), x), 1e-4)
    y, _ = batched()(x, 0 * ALPHA, None)
    z = np.asarray(x, np.float64)
    assert_close(y, (z - z.mean((0, 1))) / np.sqrt(z.var((0, 1)) + 1e-5), 1e-4)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("masked", [False, True], ids=["", "mask"])
def test_several_sample_axes(unit, masked):
    """Every (batch, time) is a sample: time-major or not, it is a batch of all of them."""
    x = inputs(3, 4, 2)
    mask = mask_of(x) if masked else None
    together = x.reshape(12, 2, CHANNELS)
    flat_mask = None if mask is None else mask.reshape(12, 2, 1)

    def flat(x, alpha, mask):
        y, stats = batched(unit=unit)(together_of(x), alpha, flat_mask)
        return y.reshape(x.shape), stats

    def together_of(x):
        return x.reshape(together.shape)

    expected = value_and_grads(flat, x)
    assert_same(value_and_grads(batched((0, 1), unit=unit), x, mask), expected)
    if unit == "rms":  # the order in which axes are named or stand does not matter
        assert_same(value_and_grads(batched([-3, 0], unit=unit), x, mask), expected)

        def moved(x, alpha, mask):
            mask = None if mask is None else mask.transpose(2, 1, 0, 3)
            y, stats = batched((1, 2), unit=unit)(x.transpose(2, 1, 0, 3), alpha, mask)
            return y.transpose(2, 1, 0, 3), stats

        assert_same(value_and_grads(moved, x, mask), expected)


def test_time_major_sequences():
    """Axis 1 alone: a sample is a sequence, as with axis 0 where the batch stands first."""
    x = inputs(3, 4)

    def batch_major(x, alpha, mask):
        y, stats = batched()(x.swapaxes(0, 1), alpha, mask)
        return y.swapaxes(0, 1), stats

    assert_same(value_and_grads(batched(1), x), value_and_grads(batch_major, x))


def test_one_example_per_call_of_the_module():
    x = inputs(6)
    fields = {"use_running_average": False, "unit": "rms"}
    module = UnitizedBatchNorm(axis_name="batch", sample_axis=None, **fields)
    variables = module.init(jax.random.key(0), x[0])  # outside the mapped axis
    plain = UnitizedBatchNorm(**fields)
    expected = plain.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    variables["params"]["alpha"] += ALPHA

    def call(x):
        return module.apply(variables, x, mutable=["batch_stats"])

    mapped = jax.vmap(call, out_axes=(0, None), axis_name="batch")(x)
    assert_same(mapped, plain.apply(variables, x, mutable=["batch_stats"]))


def test_one_example_without_the_others_is_refused():
    with pytest.raises(ValueError, match=r"`sample_axis` \(=None\).*\(5,\).*axis_name='batch'"):
        batched(None)(inputs()[:], ALPHA, None)
    with pytest.raises(ValueError, match=r"`sample_axis` \(=None\).*\(5,\).*axis_name='batch'"):
        UnitizedBatchNorm(False, sample_axis=None).init(jax.random.key(0), inputs())
