"""Each measure against float64 numpy, a published implementation or a limit."""

import inspect
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadprog
from scipy.optimize import minimize
from scipy.spatial.distance import cdist, pdist
from scipy.stats import wasserstein_distance

from unitnorm_jax.ics import measures

RNG = np.random.default_rng(0)


def samples(n, *shape, drift=0.3, offset=0.0):
    x = RNG.normal(size=(n, *shape)) * np.linspace(0.5, 2, shape[-1])
    y = 1.1 * x + drift * RNG.normal(size=x.shape) + drift
    return (x + offset).astype(np.float32), (y + offset).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize(("shape", "axis"), [((5,), -1), ((3, 2, 5), -1), ((5, 3, 2), 1)])
def test_moments_and_distances_of_channels(shape, axis, offset):
    x, y = samples(12, *shape, offset=offset)
    wide = [np.moveaxis(z.astype(np.float64), axis, -1).reshape(-1, 5) for z in (x, y)]
    mean, std = ([z.mean(0) for z in wide], [z.std(0) for z in wide])
    drift = measures.moment_drift(x, y, axis=axis)
    np.testing.assert_allclose(drift.mean, np.abs(mean[1] - mean[0]) / std[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(drift.std, np.abs(std[1] - std[0]) / std[0], rtol=1e-4, atol=1e-5)
    distances = [wasserstein_distance(a, b) for a, b in zip(wide[0].T, wide[1].T, strict=True)]
    found = measures.channel_em_distance(x, y, axis=axis)
    np.testing.assert_allclose(found, distances, rtol=1e-4, atol=1e-5)


def test_channels_that_were_constant():
    x = np.array([[1, 1], [1, 1]], np.float32)
    assert np.array_equal(measures.moment_drift(x, x).mean, [0, 0])
    moved = measures.moment_drift(x, x + np.array([[0, 1]], np.float32))
    assert np.array_equal(moved.mean, [0, np.inf])


def test_summary_is_numpys():
    values = RNG.normal(size=17).astype(np.float32)
    np.testing.assert_allclose(
        measures.summary(jnp.asarray(values)), np.quantile(values, [0.5, 0.9]), rtol=1e-6
    )


@pytest.mark.parametrize("axis", [1, 3])
def test_estimation_shift_is_that_of_the_inputs(axis):
    x, _ = samples(6, 4, 4, 4, offset=10.0)
    mean, var = (RNG.uniform(1, 2, 4).astype(np.float32) for _ in range(2))
    values = np.moveaxis(x.astype(np.float64), axis, -1).reshape(-1, 4)
    found = measures.estimation_shift(mean, var, x, axis=axis)
    assert float(found.mean) == pytest.approx(np.linalg.norm(mean - values.mean(0)), rel=1e-5)
    std = np.linalg.norm(np.sqrt(var) - values.std(0))
    assert float(found.std) == pytest.approx(std, rel=1e-4)


def h_matrix(x, y, sigma):
    x, y = (z.astype(np.float64).reshape(len(z), -1) for z in (x, y))
    k = lambda a, b: np.exp(-cdist(a, b, "sqeuclidean") / 2 / sigma**2)  # noqa: E731
    return k(x, x) + k(y, y) - k(x, y) - k(x, y).T


@pytest.mark.parametrize("sigma", [None, 2.5])
def test_mmd_and_its_error_left_out_one_by_one(sigma):
    n = 9
    x, y = samples(n, 2, 3)
    pooled = np.concatenate([x, y]).reshape(2 * n, -1).astype(np.float64)
    width = np.median(pdist(pooled)) if sigma is None else sigma
    found = measures.mmd(x, y, bandwidth=sigma)
    assert float(found.bandwidth) == pytest.approx(width, rel=1e-6)
    assert float(measures.median_bandwidth(x, y)) == pytest.approx(np.median(pdist(pooled)))

    def value(h):
        return (h.sum() - np.trace(h)) / (len(h) * (len(h) - 1))

    h = h_matrix(x, y, width)
    assert float(found.value) == pytest.approx(value(h), rel=1e-4, abs=1e-6)
    without = [value(np.delete(np.delete(h, i, 0), i, 1)) for i in range(n)]
    error = np.sqrt((n - 1) / n * np.square(without - np.mean(without)).sum())
    assert float(found.standard_error) == pytest.approx(error, rel=1e-3)


def test_mmd_is_zero_on_average_where_nothing_moves():
    pairs = jnp.asarray(RNG.normal(size=(200, 2, 16, 4)), jnp.float32)
    values, errors, _ = jax.vmap(lambda p: measures.mmd(p[0], p[1], bandwidth=2.0))(pairs)
    assert abs(float(values.mean())) < 3 * float(values.std()) / np.sqrt(200)
    # Without a first-order term the jackknife counts the second twice.
    assert float(errors.mean()) == pytest.approx(2**0.5 * float(values.std()), rel=0.15)
    assert float(measures.mmd(pairs[0, 0], pairs[0, 0]).value) == 0


def test_mmd_of_points_that_coincide():
    x = np.zeros((4, 2), np.float32)
    assert float(measures.mmd(x, x).value) == 0
    assert np.isnan(measures.mmd(x, np.full_like(x, np.nan)).value)


def quadratic(x, y, sigma):
    x, y = (z.astype(np.float64).reshape(len(z), -1) for z in (x, y))
    k = lambda a, b: np.exp(-cdist(a, b, "sqeuclidean") / 2 / sigma**2)  # noqa: E731
    return k(x, x), k(x, y).mean(1)


@pytest.mark.parametrize("limit", [1.0, 1.5, 3.0, 1000.0])
def test_weights_are_those_of_two_other_solvers(limit):
    n = 24
    x, y = samples(n, 3, drift=1.0)
    found = measures.kernel_mean_matching(x, y[:15], bandwidth=2.0, limit=limit)
    k, target = quadratic(x, y[:15], 2.0)
    assert found.weights.sum() == pytest.approx(1, abs=1e-12)
    assert found.weights.min() >= 0
    assert found.weights.max() <= limit / n + 1e-15
    assert found.residual < 1e-9

    def objective(w):
        return 0.5 * w @ k @ w - target @ w

    eye = np.eye(n)
    constraints = np.concatenate([np.ones((1, n)), eye, -eye])
    right = np.concatenate([[1], np.zeros(n), np.full(n, -limit / n)])
    best = quadprog.solve_qp(k + 1e-12 * eye, target, constraints.T, right, meq=1)[0]
    assert objective(found.weights) <= objective(best) + 1e-10
    if limit > 1:
        one = {"type": "eq", "fun": lambda w: w.sum() - 1}
        options = {"ftol": 1e-12, "maxiter": 500}
        bounds = [(0, limit / n)] * n
        start = np.full(n, 1 / n)
        by_scipy = minimize(
            objective, start, bounds=bounds, constraints=one, method="SLSQP", options=options
        )
        assert objective(found.weights) <= by_scipy.fun + 1e-9
        np.testing.assert_allclose(found.weights, best, atol=1e-5)
    assert found.effective_sample_size == pytest.approx(1 / np.square(found.weights).sum())
    expected = 2 * objective(found.weights) + quadratic(y[:15], y[:15], 2.0)[0].mean()
    assert found.mmd == pytest.approx(expected, abs=1e-9)


def test_weights_leave_out_what_is_not_there():
    x = np.concatenate([RNG.normal(size=(20, 2)), RNG.normal(size=(5, 2)) + 30])
    found = measures.kernel_mean_matching(x, x[:20])
    assert found.weights[20:].sum() < 1e-6
    assert found.effective_sample_size == pytest.approx(20, rel=1e-3)
    most = np.repeat(x[:1], 9, axis=0)  # a median distance, and so a bandwidth, of 0
    most[0] += 1
    assert measures.kernel_mean_matching(most, most[1:]).weights[0] < 1e-6
    twice = np.concatenate([x, x])  # a kernel matrix without an inverse
    assert measures.kernel_mean_matching(twice, x).residual < 1e-6


@pytest.mark.parametrize(("n", "m", "d"), [(40, 40, 6), (40, 25, 6), (8, 8, 30), (8, 5, 30)])
def test_gaussian_w2_is_otts(n, m, d):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a library that it uses
        from ott.geometry.costs import Bures
    x, _ = samples(n, d)
    _, y = samples(m, d)
    with jax.enable_x64(True):
        wide = [jnp.asarray(z.reshape(len(z), -1), jnp.float64) for z in (x, y)]
        moments = []
        for z in wide:
            cov = jnp.cov(z.T, bias=True) + 1e-12 * jnp.eye(d)
            moments.append(jnp.concatenate([z.mean(0), cov.reshape(-1)]))
        squared = Bures(d)(*moments)
    assert float(measures.gaussian_w2(x, y)) == pytest.approx(float(squared) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(("n", "d"), [(30, 5), (6, 40)])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_gaussian_w2_of_a_small_scaling(n, d, offset):
    x = RNG.integers(-8, 9, (n, d)).astype(np.float32)
    step = 2.0**-10
    y = x * (1 + step) + offset
    exact = step * np.sqrt(np.square(x.astype(np.float64)).sum(1).mean())
    shift = np.float64(offset) * np.sqrt(d)
    # Scaling moves along the mean too: W2^2 = |(s - 1) m + shift|^2 + (s - 1)^2 tr S.
    mean = x.astype(np.float64).mean(0)
    if offset:
        moved = step * mean + offset
        exact = np.sqrt(np.square(moved).sum() + step**2 * x.astype(np.float64).var(0).sum())
        assert exact == pytest.approx(shift, rel=1e-2)
    found = float(measures.gaussian_w2(x, y.astype(np.float32)))
    assert found == pytest.approx(exact, rel=1e-3)


def test_gaussian_w2_of_what_has_no_spread_and_of_nan():
    x = np.ones((3, 2), np.float32)
    assert float(measures.gaussian_w2(x, x)) == 0
    assert float(measures.gaussian_w2(x, x + 1)) == pytest.approx(2**0.5)
    assert np.isnan(measures.gaussian_w2(x, x * np.nan))


X = np.zeros((4, 3, 2), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measures.moment_drift(X, X, axis=0), r"`axis` \(=0\).*\(4, 3, 2\)"),
        (lambda: measures.channel_em_distance(X, X, axis=3), r"`axis` \(=3\)"),
        (lambda: measures.moment_drift(X, X[:, :2]), r"\(4, 3, 2\).*\(4, 2, 2\)"),
        (lambda: inspect.unwrap(measures.mmd)(X, X[:3]), r"\(4, 3, 2\).*\(3, 3, 2\).*paired"),
        (lambda: measures.mmd(X[:2], X[:2]), r"at least 3"),
        (
            lambda: inspect.unwrap(measures.estimation_shift)(X[0, 0], X[0, :, 0], X),
            r"`running_var` \(=shape \(3,\)\)",
        ),
        (lambda: measures.kernel_mean_matching(X, X, limit=0.5), r"`limit` \(=0.5\)"),
        (lambda: measures.kernel_mean_matching(X, X * np.nan), "finite"),
        (lambda: measures.gaussian_w2(X, X * 1j), "real.*complex64"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        call()


def test_each_is_documented():
    for name, thing in vars(measures).items():
        if inspect.isfunction(thing):
            assert "Raises:" in thing.__doc__ or name == "summary"
