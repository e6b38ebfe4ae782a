"""Statistics of a batch, pooled and tracked, against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracle import assert_close
from unitnorm_jax.contrib.noise_aware_batch_norm import (
    batch_statistics,
    pool_statistics,
    track_statistics,
)
from unitnorm_jax.functional import BatchStats


@pytest.mark.parametrize(
    ("shape", "axis"), [((6, 3), -1), ((6, 4, 3, 2), 1), ((6, 4, 3, 2), (1, 3))]
)
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_batch_statistics(shape, axis, offset):
    x = offset + np.asarray(jax.random.normal(jax.random.key(0), shape))
    mask = np.asarray(jax.random.bernoulli(jax.random.key(1), 0.7, shape))
    named = axis if isinstance(axis, tuple) else (axis % len(shape),)
    over = tuple(i for i in range(len(shape)) if i not in named)
    for where in (None, mask):
        valid = np.ones(shape, bool) if where is None else mask
        exact = x.astype(np.float64)
        given = np.where(valid, x, np.nan) if where is not None else x  # poison
        stats, count = jax.jit(
            lambda x, m: batch_statistics(x, axis=axis, mask=m), static_argnums=()
        )(given.astype(np.float32), where)
        assert_close(stats.mean, exact.mean(over, where=valid), 1e-6)
        assert_close(stats.var, exact.var(over, where=valid), 1e-4)
        np.testing.assert_array_equal(count, valid.sum(over))


def test_feature_without_a_value():
    stats, count = batch_statistics(jnp.ones((3, 2)), mask=jnp.array([[True, False]]))
    assert stats.mean.tolist() == [1, 0]
    assert stats.var.tolist() == [0, 0]
    assert count.tolist() == [3, 0]


def test_across_devices_by_counts():
    x = jax.random.normal(jax.random.key(0), (8, 5, 3))
    mask = jax.random.bernoulli(
        jax.random.key(1), jnp.linspace(0.2, 0.9, 8)[:, None, None], x.shape
    )
    run = jax.pmap(lambda x, m: batch_statistics(x, mask=m, axis_name="d"), "d")
    stats, count = run(x, mask)
    whole, number = batch_statistics(x, mask=mask)
    for device in range(8):
        assert_close(stats.mean[device], whole.mean, 1e-6)
        assert_close(stats.var[device], whole.var, 1e-6)
        np.testing.assert_array_equal(count[device], number)


def test_pooled_are_those_of_all_values():
    """Batches of different sizes and means: a moving average or a plain mean would be wrong."""
    rng = np.random.default_rng(0)
    batches = [
        rng.normal(loc=m, scale=1 + abs(m), size=(n, 4)) for n, m in ((1, 5), (20, 0), (7, -2))
    ]
    parts = [batch_statistics(jnp.asarray(b, jnp.float32)) for b in batches]
    pooled = pool_statistics(*map(list, zip(*parts, strict=True)))
    together = np.concatenate(batches)
    assert_close(pooled.mean, together.mean(0), 1e-6)
    assert_close(pooled.var, together.var(0), 1e-6)
    plain = np.mean([p[0].mean for p in parts], 0)
    assert np.abs(plain - together.mean(0)).max() > 0.5


def test_tracking_is_an_exponential_average():
    stats = BatchStats(jnp.zeros(2), jnp.ones(2))
    batch = BatchStats(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
    run = jax.jit(track_statistics)
    for t in range(1, 6):
        stats = run(stats, batch, 0.3)
        left = 0.7**t
        assert_close(stats.mean, (1 - left) * np.array([1.0, 2.0]), 1e-6)
        assert_close(stats.var, left + (1 - left) * np.array([3.0, 4.0]), 1e-6)
    jax.tree.map(np.testing.assert_array_equal, track_statistics(stats, batch, 0), stats)
    jax.tree.map(np.testing.assert_array_equal, track_statistics(stats, batch, 1), batch)


STATS = BatchStats(jnp.zeros(2), jnp.ones(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: track_statistics(STATS, STATS, -0.1), r"`rate` \(=-0.1\) must be in \[0, 1\]"),
        (lambda: track_statistics(STATS, STATS, 1.1), r"`rate` \(=1.1\) must be in \[0, 1\]"),
        (lambda: pool_statistics([], []), r"`stats` \(of 0 batches\) and `counts` \(of 0\)"),
        (lambda: pool_statistics([STATS], []), r"`stats` \(of 1 batches\) and `counts` \(of 0\)"),
        (lambda: batch_statistics(jnp.ones((2, 3), complex)), "The input must be real"),
        (lambda: batch_statistics(jnp.ones((2, 3)), axis=2), r"`axis` \(=2\) is out of range"),
        (lambda: batch_statistics(jnp.ones((2, 3)), axis=(0, 1)), "leave one or more of them, to"),
        (lambda: batch_statistics(jnp.ones(3)), "The input must have rank >= 2"),
        (
            lambda: batch_statistics(jnp.ones((2, 3)), mask=jnp.ones(2, bool)),
            r"`mask` of shape \(2,\) does not broadcast",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
