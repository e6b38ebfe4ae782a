"""Sequences: where their samples and steps lie, which of them count, and what they weigh."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ics.probe.quick import Quick
from unitnorm_jax import ics

N, T = 6, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, T, 3)).astype(np.float32)
MASK = np.arange(T)[None, :] < np.array([4, 2, 1, 0, 3, 4])[:, None]


def f(state, x):
    y = jnp.asarray(x) * state
    return {"y": y, "pooled": y.sum(axis=(y.ndim - 2)), "half": y[:, ::2]}


def rows(batch, probe=Quick, layers="y", model=f, **options):
    return probe.of(model, batch, layers, **options)(jnp.float32(1), jnp.float32(1.5)).rows()


def moved(points):
    """Mean distance of points (n, d) from 1.5 times themselves."""
    return np.linalg.norm(0.5 * points.reshape(len(points), -1), axis=1).mean()


def time_major(x):
    return np.swapaxes(x, 0, 1)


@pytest.mark.parametrize("x", [X, RNG.normal(size=(N, N, 3)).astype(np.float32)])
def test_time_major(x):
    for sample_axis in (1, {"x": 1, "table": None}):
        batch = {"x": time_major(x), "table": np.ones((7, N), np.float32)}
        take = lambda w, b: f(w, b["x"])  # noqa: E731
        (row,) = rows(batch, model=take, sample_axis=sample_axis)
        assert (row["n"], row["d"], row["points"]) == (N, 3 * x.shape[1], "samples")
        assert row["note"] == ""
        assert row["value"] == pytest.approx(moved(x), rel=1e-5)


def test_the_axes_of_several_arguments():
    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, x, lengths):
            return nn.LayerNorm()(x * lengths[None, :, None])

    lengths = np.arange(1.0, N + 1, dtype=np.float32)
    variables = Decoder().init(jax.random.key(0), time_major(X), lengths)
    for axes in ((1, 0), [1, 0]):
        probe = Quick(Decoder(), (time_major(X), lengths), sample_axis=tuple(axes))
        (row,) = probe(variables, variables).rows()
        assert (row["n"], row["d"]) == (N, 3 * T)


@pytest.mark.parametrize("turned", [False, True])
def test_steps(turned):
    x, mask = (time_major(z) if turned else z for z in (X, MASK))
    options = {"sample_axis": int(turned), "points": "steps"}
    (row,) = rows(x, **options)
    assert (row["n"], row["d"], row["points"]) == (N * T, 3, "steps")
    assert row["value"] == pytest.approx(moved(X.reshape(-1, 3)), rel=1e-5)
    poisoned = np.where(mask[..., None], x, np.nan)
    (row,) = rows(poisoned, mask=mask, **options)
    assert (row["n"], row["d"], row["reason"]) == (MASK.sum(), 3, "")
    assert row["value"] == pytest.approx(moved(X[MASK]), rel=1e-5)


@pytest.mark.parametrize("turned", [False, True])
def test_masked_samples(turned):
    x, mask = (time_major(z) if turned else z for z in (X, MASK))
    poisoned = np.where(mask[..., None], x, np.nan)
    (row,) = rows(poisoned, mask=mask, sample_axis=int(turned))
    assert (row["n"], row["d"], row["reason"]) == (N - 1, 3 * T, "")
    counted = np.where(MASK[..., None], X, 0)[MASK.any(1)]
    assert row["value"] == pytest.approx(moved(counted), rel=1e-5)
    (row,) = rows(X, mask=MASK.any(1))
    assert row["value"] == pytest.approx(moved(X[MASK.any(1)]), rel=1e-5)


def test_outputs_without_steps():
    names = ("pooled", "half")
    pooled, half = rows(X, layers=names, mask=MASK)
    assert (pooled["n"], pooled["d"], pooled["reason"]) == (N - 1, 3, "")
    assert all("it has no axis of 4 steps: the mask's" in row["note"] for row in (pooled, half))
    pooled, half = rows(X, layers=names, points="steps")
    for row in (pooled, half):
        assert "must have one entry per step along one axis (n=4 becomes n=5" in row["reason"]
    assert str(Quick.of(f, X, "y", points="steps")(1.0, 2.0)).count("24 steps") == 1


def test_an_ambiguous_axis_is_reported():
    square = RNG.normal(size=(N, N, 3)).astype(np.float32)
    for axis in (0, 1):
        fixed = lambda w, x: {"y": w * jnp.asarray(x).reshape(N, N, 3)}  # noqa: E731
        with pytest.warns(UserWarning, match=rf"axes \[0, 1\] .*: axis {axis} is taken"):
            (row,) = rows(square, model=fixed, sample_axis=axis)
        assert "each of the axes [0, 1] of (6, 6, 3) (n=6; a batch of 7" in row["note"]
        assert row["note"].endswith(f"axis {axis} is taken")
        y = square if axis == 0 else time_major(square)
        assert row["value"] == pytest.approx(moved(y), rel=1e-5)


def test_weights(exact_weighted):
    weights = np.array([1, 0, 2, 0.5, 3, 1])
    x = np.where(weights[:, None] > 0, X[:, 0], np.nan)
    w = jnp.asarray(RNG.normal(size=(2, 3, 3)), jnp.float32)
    g = lambda w, x: {"y": x @ w}  # noqa: E731
    for state, options in ((w[1], {}), (w[0] + 1e-3, {"method": "pairing"})):
        (row,) = ics.ICSProbe.of(g, x, weights=weights, **options)(w[0], state).rows()
        used = weights > 0
        y, z = (np.asarray(jax.jit(g)(v, x)["y"], float)[used] for v in (w[0], state))
        a = weights[used]
        truth = exact_weighted(y, z, a, a)
        assert row["certified_lower"] <= truth * (1 + 1e-6)
        assert truth <= row["certified_upper"] * (1 + 1e-6)
        spread = a @ np.linalg.norm(y - a @ y / a.sum(), axis=1) / a.sum()
        assert row["spread"] == pytest.approx(spread, rel=1e-5)
        assert row["relative"] == pytest.approx(row["value"] / spread, rel=1e-5)
        paired = a @ np.linalg.norm(y - z, axis=1) / a.sum()
        assert paired <= row["upper_pairing"] <= paired * (1 + 1e-5)
        assert row["pairing_optimal"] == (paired <= truth * (1 + 1e-5))
        assert np.isnan(row["lower_mean"])
        assert np.isnan(ics.best_bounds(row)).all()
        assert (row["n"], row["reason"]) == (5, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": "all"}, r"`points` \(='all'\) must be one of 'samples', 'steps'"),
        ({"sample_axis": -1}, r"`sample_axis` \(=-1\) must be an axis from 0 on, or a tree"),
        ({"sample_axis": (0, 0)}, r"`sample_axis` \(=\(\(0, 0\),\)\) must be one axis, or a tree"),
        ({"sample_axis": 3}, r"`batch` must hold .* along axis `sample_axis` \(=3\)"),
        ({"points": "steps", "step_axis": 0}, r"`step_axis` \(=0\) must be an axis .* \(6, 4, 3\)"),
        (
            {"mask": MASK.astype(float)},
            r"`mask` \(=float64, shape \(6, 4\)\) must be of dtype bool",
        ),
        (
            {"mask": MASK[:5]},
            r"shape \(5, 4\)\) must .* have shape \(6,\) or \(6, 4\), with a True",
        ),
        ({"mask": np.zeros(N, bool)}, r"have shape \(6,\), with a True"),
        ({"weights": np.ones(3)}, r"`weights` \(=float64, shape \(3,\)\) must .* shape \(6,\)"),
        ({"weights": np.zeros(N)}, r"`weights` \(=all 0\) must weigh at least one sample"),
        (
            {"weights": np.ones(N), "method": "scipy"},
            r"`method` \(='scipy'\) must be 'auto', 'pair",
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ics.ICSProbe.of(f, X, **options)


def test_arrays_that_disagree():
    batch = {"a": X, "b": np.ones((N + 1, 2), np.float32)}
    with pytest.raises(ValueError, match=r"name an axis of 6 samples in each .*\(7, 2\)"):
        ics.ICSProbe.of(f, batch, sample_axis={"a": 0, "b": 0})
