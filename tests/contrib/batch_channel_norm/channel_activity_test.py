"""Dead channels and |mean| / std over a data set, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle import assert_close
from unitnorm_jax.contrib.batch_channel_norm import channel_activity, dead_channels, mean_to_std

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((12, 3, 4)) + np.array([0, -9, 3, -0.5])).astype(np.float32)


def assert_is(activity, values, tol):
    """``values``: one array per channel."""
    values = [np.asarray(v, np.float64) for v in values]
    assert_close(activity.size, [len(v) for v in values], 0)
    assert_close(activity.mean, [v.mean() for v in values], tol)
    assert_close(activity.var, [v.var() for v in values], tol)
    assert_close(activity.max, [v.max() for v in values], 0)
    np.testing.assert_array_equal(dead_channels(activity), [(v <= 0).all() for v in values])
    assert_close(mean_to_std(activity), [abs(v.mean()) / v.std() for v in values], tol)


def test_one_batch_and_axis():
    expected = X.reshape(-1, 4).T
    assert_is(channel_activity(jnp.asarray(X)), expected, 1e-5)
    assert_is(channel_activity(jnp.asarray(X.transpose(0, 2, 1)), axis=1), expected, 1e-5)


@pytest.mark.slow
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.sampled_from([0.0, 1e3]))
def test_batches_of_any_size_merge_exactly(sizes, offset):
    """A mean of the batches' means would be wrong; so would E[x^2] - E[x]^2."""
    rng = np.random.default_rng(sum(sizes))
    batches = [(rng.standard_normal((n, 2)) + offset).astype(np.float32) for n in sizes]
    activity = None
    for batch in batches:
        activity = channel_activity(jnp.asarray(batch), activity)
    values = np.concatenate(batches).astype(np.float64)
    # The error of a mean is in units of the values; a mean near 0 has fewer digits.
    largest = np.abs(values).max()
    np.testing.assert_allclose(activity.mean, values.mean(0), rtol=0, atol=1e-6 * largest)
    np.testing.assert_allclose(activity.var, values.var(0), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(activity.max, values.max(0))


def test_masked_values_do_not_count():
    mask = RNG.uniform(size=(12, 3, 1)) < 0.5
    x = np.where(mask, X, np.nan)
    expected = [X[..., c][mask[..., 0]] for c in range(4)]
    assert_is(channel_activity(jnp.asarray(x), mask=jnp.asarray(mask)), expected, 1e-5)
    nothing = channel_activity(jnp.asarray(x), mask=jnp.zeros((1, 1, 1), bool))
    merged = channel_activity(jnp.asarray(X), nothing)
    assert_is(merged, X.reshape(-1, 4).T, 1e-5)


def test_devices_add_up():
    x = jnp.asarray(X[:8])
    activity = jax.pmap(lambda x: channel_activity(x, axis_name="i"), "i", out_axes=None)(
        x[:, None]
    )
    assert_is(activity, X[:8].reshape(-1, 4).T, 1e-5)


def test_what_is_not_finite_is_not_healthy():
    x = np.tile(np.array([[1.0, 1, 1, 0, 1]], np.float32), (4, 1))
    x[1] = [np.nan, np.inf, 1e30, 0, 3]
    ratios = mean_to_std(channel_activity(jnp.asarray(x)))
    np.testing.assert_array_equal(ratios[:4], [np.nan, np.nan, np.nan, 0])
    later = channel_activity(jnp.ones((4, 5)), channel_activity(jnp.asarray(x)))
    np.testing.assert_array_equal(np.isnan(mean_to_std(later)), [True, True, True, False, False])


def test_constants():
    activity = channel_activity(jnp.array([[0.0, 2.0, -1.0], [0.0, 2.0, -1.0]]))
    np.testing.assert_array_equal(dead_channels(activity), [True, False, True])
    np.testing.assert_array_equal(mean_to_std(activity), [0, np.inf, np.inf])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: channel_activity(x[..., :3], channel_activity(x)), "has 3 channels, .* had 4"),
        (lambda x: channel_activity(x, axis=3), r"`axis` \(=3\) is out of range"),
        (lambda x: channel_activity(x[0, 0]), "rank"),
        (lambda x: channel_activity(x, mask=jnp.ones((5, 1), bool)), "`mask`"),
    ],
)
def test_wrong_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call(jnp.asarray(X))
