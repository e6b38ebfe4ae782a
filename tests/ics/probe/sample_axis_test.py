"""Layers and time steps are no samples, however many there are."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax import ics
from unitnorm_jax.ics.probe._batch import take_in
from unitnorm_jax.ics.probe._sample_axis import Output, find_axes

N = 6
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)


def axes(forward, *args):
    arrays, batch = take_in(args, 0)
    outputs = [Output(f"Output {i}", y.shape) for i, y in enumerate(forward(arrays))]
    return find_axes(forward, arrays, batch.growing, batch.n, outputs)


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (lambda a: [a[0], a[0].T], [0, 1]),
        (lambda a: [jnp.stack([a[0]] * N), jnp.stack([a[0]] * N, 1)], [1, 0]),  # N layers
        (lambda a: [jnp.broadcast_to(a[0], (2, N, *a[0].shape))], [2]),
        (lambda a: [a[0].sum(1)], [0]),
        # Both arrays must grow.
        (lambda a: [a[0] * a[1], jnp.stack([a[1]] * N)], [0, 1]),
        # The second array has N rows that are no samples.
        (lambda a: [a[0] @ a[1].T, (a[0] @ a[1].T).T], [0, 1]),
        (lambda a: [a[1] @ jnp.ones((4, N)) @ a[2] @ a[0].T], [1]),  # a[1] grows too
        # Written for N samples.
        (lambda a: [a[0].reshape(N, 2, 2)], [0]),
    ],
)
def test_the_axis_that_grows(forward, expected):
    table = np.ones((N, 4), np.float32)
    found = axes(forward, X, table, np.ones((N, 4), np.float32))
    assert [one.axis for one in found] == expected
    assert not any(one.note or one.reason for one in found)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        # As many channels as samples, and none of them a sample.
        (lambda a: [jnp.ones(N) * a[0].mean()], r"must have one entry per sample .* \(6,"),
        (lambda a: [jnp.ones((N, 3)) + a[0].mean()], r"n=6 becomes n=7 .* but has shape \(6, 3\)"),
        (lambda a: [jnp.concatenate([a[0], a[0]])], r"has shape \(12, 4\); return it with the sam"),
        (lambda a: [(a[0] @ a[0].T)[None]], r"shape \(1, 6, 6\), where axes \[1, 2\] fit; return"),
        (lambda a: [a[0].reshape(N, 4).T], r"a batch of 7 cannot be traced.*shape \(4, 6\), where"),
    ],
)
def test_no_axis(forward, message):
    (found,) = axes(forward, X)
    assert found.axis is None
    assert re.search(message, found.reason)


@pytest.mark.parametrize(
    ("forward", "how"),
    [
        (lambda a: [a[0] @ a[0].T], "n=6 becomes n=7 with one sample more"),
        (lambda a: [jnp.stack([a[0].reshape(N, 4)] * N)], "a batch of 7 cannot be traced"),
    ],
)
def test_two_axes_fit(forward, how):
    with pytest.warns(UserWarning, match=rf"Output 0 .* axes \[0, 1\] .*{how}.*: axis 0 is taken"):
        (found,) = axes(forward, X)
    assert found.axis == 0
    assert "lie along each of the axes [0, 1] of" in found.note


class TimeMajor(nn.Module):
    written_for: int | None = None

    @nn.compact
    def __call__(self, x):  # (samples, steps, features)
        x = jnp.swapaxes(x, 0, 1)
        if self.written_for is not None:
            x = x.reshape(self.written_for, self.written_for, 3)
        return nn.LayerNorm()(nn.Dense(3)(x))


def test_as_many_steps_as_samples(exact):
    x = np.random.default_rng(1).normal(size=(N, N, 3)).astype(np.float32)
    model = TimeMajor()
    before = model.init(jax.random.key(0), x)
    after = jax.tree.map(lambda p: 1.1 * p + 0.05, before)
    (layer,) = ics.ICSProbe(model, x, method="pairing")(before, after).layers
    y, z = (np.swapaxes(model.apply(v, x), 0, 1).reshape(N, -1) for v in (before, after))
    np.testing.assert_allclose(layer.upper["pairing"], np.linalg.norm(y - z, axis=1).mean(), 1e-4)
    assert layer.distance.lower <= exact(y, z) * (1 + 1e-5)

    fixed = ics.ICSProbe(TimeMajor(N), x, method="pairing")
    with pytest.warns(UserWarning, match=r"'LayerNorm_0' .* axis 0 is taken. Choose a number of"):
        fixed(before, after)


def test_statistics_of_the_batch_are_no_samples():
    class Mean(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.LayerNorm()(nn.Dense(N)(x).mean(0))

    variables = Mean().init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"'LayerNorm_0' .* must have one entry per sample"):
        ics.ICSProbe(Mean(), X, strict=True)(variables, variables)
