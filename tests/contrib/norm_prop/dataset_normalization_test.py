"""Normalization of a whole data set, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle import assert_close
from unitnorm_jax.contrib.norm_prop import DatasetStats, dataset_stats, normalize_dataset

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((60, 6)) @ RNG.standard_normal((6, 6)) + 3).reshape(60, 3, 2)


def test_unit_variance(x64):
    z = normalize_dataset(jnp.asarray(X), dataset_stats(jnp.asarray(X)))
    assert_close(z, (X - X.mean(0)) / X.std(0), 1e-12)


@pytest.mark.parametrize("whitening", ["pca", "zca"])
def test_whitening(whitening, x64):
    z = normalize_dataset(jnp.asarray(X), dataset_stats(jnp.asarray(X), whitening=whitening,
                                                        epsilon=0.0))  # fmt: skip
    assert z.shape == X.shape
    flat = np.asarray(z).reshape(60, 6)
    assert_close(flat.mean(0), np.zeros(6), 1e-12, size=1.0)
    assert_close(flat.T @ flat / 60, np.eye(6), 1e-9)


def test_zca_is_the_nearest_white_data(x64):
    """Its transform is the symmetric root of the inverse covariance."""
    flat = X.reshape(60, 6)
    transform = dataset_stats(jnp.asarray(X), whitening="zca", epsilon=0.1).transform
    values, vectors = np.linalg.eigh(np.cov(flat.T, ddof=0))
    assert_close(transform, vectors @ np.diag((values + 0.1) ** -0.5) @ vectors.T, 1e-10)


@pytest.mark.parametrize("whitening", [None, "pca", "zca"])
@pytest.mark.parametrize("constant", [0.0, 1e4, 0.1])
def test_constant_features_become_zero(constant, whitening):
    """As the corners of handwritten digits are; roundoff is no variance."""
    x = X.astype(np.float32)
    x[:, 0, 0] = constant
    z = normalize_dataset(jnp.asarray(x), dataset_stats(jnp.asarray(x), whitening=whitening))
    assert np.isfinite(z).all()
    if whitening is None:
        np.testing.assert_allclose(z[:, 0, 0], 0, atol=1e-6)
        assert_close(z[:, 1], (X[:, 1] - X[:, 1].mean(0)) / X[:, 1].std(0), 1e-5)


@given(st.floats(0.01, 100), st.floats(-10, 10))
def test_units_of_the_inputs_do_not_matter(factor, shift):
    with jax.enable_x64(True):
        moved = jnp.asarray(factor * X + shift)
        z = normalize_dataset(moved, dataset_stats(moved))
        assert_close(z, (X - X.mean(0)) / X.std(0), 1e-9)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: dataset_stats(x, whitening="ica"), r"`whitening` \(='ica'\) .*'pca', 'zca'"),
        (lambda x: dataset_stats(x, epsilon=-1.0), r"`epsilon` \(=-1.0\)"),
        (lambda x: dataset_stats(x[:1]), r"shape \(1, 3, 2\), but must hold two or more"),
        (lambda x: dataset_stats(x[:, 0, 0]), r"shape \(60,\)"),
        (
            lambda x: normalize_dataset(x[:, :2], dataset_stats(x)),
            r"features of shape \(2, 2\), but the statistics are of features of shape \(3, 2\)",
        ),
    ],
)
def test_wrong_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call(jnp.asarray(X, jnp.float32))


def test_statistics_are_those_of_the_training_set():
    stats = DatasetStats(jnp.array([1.0, 2.0]), jnp.array([2.0, 0.5]))
    z = normalize_dataset(jnp.array([[1.0, 4.0]]), stats)
    np.testing.assert_array_equal(z, [[0.0, 1.0]])


@pytest.mark.parametrize("whitening", [None, "zca"])
@pytest.mark.parametrize("dtype", ["float16", "uint8", "int32", "bool"])
def test_narrow_dtypes_are_computed_in_float32(dtype, whitening):
    """Squares of pixels overflow float16 and wrap in uint8; the result is floating."""
    x = RNG.integers(0, 2 if dtype == "bool" else 256, (200, 2, 2)).astype(dtype)
    stats = dataset_stats(jnp.asarray(x), whitening=whitening)
    z = normalize_dataset(jnp.asarray(x), stats)
    wide = jnp.asarray(x, jnp.float32)
    expected = normalize_dataset(wide, dataset_stats(wide, whitening=whitening))
    assert stats.mean.dtype == jnp.float32
    assert z.dtype == (dtype if dtype == "float16" else jnp.float32)
    assert_close(z, expected, 1e-3 if dtype == "float16" else 1e-6)
    assert 0.5 < np.asarray(expected).std() < 1.5


def test_features_of_any_mean_and_size():
    means, stds = np.array([1e4, 1e6, 0, 0, 1e-20]), np.array([1, 1, 1e-25, 1e20, 1e-22])
    x = (means + stds * RNG.normal(size=(60, 5))).astype(np.float32)
    stats = dataset_stats(jnp.asarray(x))
    error = np.abs(stats.mean - x.mean(0, dtype=float))
    assert (error <= 2e-7 * np.abs(x).max(0)).all()
    np.testing.assert_allclose(1 / stats.transform, x.std(0, dtype=float), rtol=1e-6)


@pytest.mark.parametrize("whitening", [None, "pca"])
def test_nan_shows(whitening):
    x = X.astype(np.float32)
    x[3, 1, 1] = np.nan
    stats = dataset_stats(jnp.asarray(x), whitening=whitening)
    z = normalize_dataset(jnp.asarray(x), stats)
    assert np.isnan(z[:, 1, 1]).all()


def test_complex_numbers_are_refused():
    with pytest.raises(ValueError, match=r"`x` must be real, not complex64: give x.real"):
        dataset_stats(jnp.ones((3, 2), jnp.complex64))
