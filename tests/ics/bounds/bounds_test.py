import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitnorm_jax.ics import bounds

LOWER = {
    "L1": bounds.mean_lower_bound,
    "L2": bounds.norm_lower_bound,
    **{f"L3, p = {p}": lambda x, y, p=p: bounds.moment_lower_bound(x, y, p) for p in (1, 2, 3, 7)},
    "L4": bounds.projection_lower_bound,
}
UPPER = {
    "U1": bounds.moment_upper_bound,
    "U2": bounds.radius_upper_bound,
    "U3": bounds.pairing_upper_bound,
}


WIDENED = 1e-5  # at most, for rounding: bounds are certificates too


@jax.jit
def every_bound(x, y):
    evaluate = lambda table: {name: bound(x, y) for name, bound in table.items()}  # noqa: E731
    return evaluate(LOWER), evaluate(UPPER)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["gaussian", "heavy", "discrete", "degenerate"]),
    st.sampled_from(["independent", "drift", "tiny", "permuted", "shifted", "same"]),
    st.sampled_from([(1, 1), (2, 5), (16, 3), (12, 40)]),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 10.0]),
)
def test_lower_bounds_exact_upper_bounds(exact, pair, kind, relation, shape, seed, offset):
    x, y = pair(kind, relation, *shape, seed, 1.0, offset)
    truth = exact(x, y)
    with jax.enable_x64(True):
        lower, upper = every_bound(x.astype(np.float64), y.astype(np.float64))
    slack = 1e-13 * (np.abs(x).max() + np.abs(y).max()) * np.sqrt(x.size)
    for name, bound in lower.items():
        assert float(bound) <= truth + slack, name
    for name, bound in upper.items():
        assert truth - slack <= float(bound), name


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_samples_of_unequal_sizes(exact_weighted, pair, offset):
    x, y = pair("gaussian", "shifted", 9, 3, 0, 1.0, offset)
    y = y[:6]
    truth = exact_weighted(x, y)
    for name, bound in LOWER.items():
        assert float(bound(x, y)) <= truth * (1 + 1e-7), name
    for name in ("U1", "U2"):
        assert truth <= float(UPPER[name](x, y)) * (1 + 1e-7), name
    apart = np.linalg.norm(x.astype(float).mean(0) - y.astype(float).mean(0))
    assert float(LOWER["L1"](x, y)) == pytest.approx(apart, rel=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 1e4]))
def test_given_points_and_directions_in_float32(exact, pair, seed, offset):
    x, y = pair("gaussian", "drift", 8, 3, seed, 1.0, offset)
    rng = np.random.default_rng(seed)
    point = (offset + rng.normal(size=3)).astype(np.float32)
    direction = rng.normal(size=3).astype(np.float32)
    truth = exact(x, y)
    assert float(bounds.projection_lower_bound(x, y, direction)) <= truth + 1e-5
    assert truth <= float(bounds.radius_upper_bound(x, y, point)) + 1e-5
    away = np.linalg.norm(x.astype(float) - point, axis=1).mean()
    away += np.linalg.norm(y.astype(float) - point, axis=1).mean()
    assert float(bounds.radius_upper_bound(x, y, point)) == pytest.approx(away, rel=1e-5)


@pytest.mark.parametrize("d", [4, 256])
def test_batch_normalization_bounds_but_does_not_reduce(exact, d):
    """Two outputs with the same means and variances, as far apart as U1 allows: sqrt(2 d)."""
    signs = np.array([[1.0], [-1.0]], np.float32)
    x = signs * np.ones((1, d), np.float32)
    y = signs * np.where(np.arange(d) < d // 2, 1, -1).astype(np.float32)[None]
    np.testing.assert_array_equal(x.mean(0), y.mean(0))
    np.testing.assert_array_equal(x.var(0), y.var(0))
    assert exact(x, y) == pytest.approx(np.sqrt(2 * d))
    assert float(bounds.moment_upper_bound(x, y)) == pytest.approx(np.sqrt(2 * d), rel=WIDENED)
    assert float(bounds.mean_lower_bound(x, y)) == 0
    for p in range(1, 9):  # nor does any moment of one coordinate tell them apart
        assert float(bounds.moment_lower_bound(x, y, p)) == 0


def test_translations_attain_u3_l1_and_l4(exact):
    x = np.random.default_rng(0).integers(-50, 50, (9, 4)).astype(np.float32)
    t = np.array([[1.0, 2.0, 4.0, 10.0]], np.float32)  # norm 11
    assert exact(x, x + t) == pytest.approx(11)
    for value in (
        bounds.pairing_upper_bound(x, x + t),
        bounds.mean_lower_bound(x, x + t),
        bounds.projection_lower_bound(x, x + t, t[0]),
    ):
        assert float(value) == pytest.approx(11, rel=WIDENED)
    axis = np.array([[5.0, 0, 0, 0]], np.float32)
    assert float(bounds.moment_lower_bound(x, x + axis, 1)) == pytest.approx(5, rel=WIDENED)
    assert float(bounds.projection_lower_bound(x, x + axis)) == pytest.approx(5, rel=WIDENED)


def test_scalings_attain_l2_and_opposite_sides_attain_u2(exact):
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    assert float(bounds.norm_lower_bound(x, 3 * x)) == pytest.approx(exact(x, 3 * x), rel=WIDENED)
    left = -np.arange(1, 4, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    zero = np.zeros(2, np.float32)
    assert float(bounds.radius_upper_bound(left, -left, zero)) == pytest.approx(
        exact(left, -left), rel=WIDENED
    )


def test_higher_moments_see_what_mean_and_variance_do_not():
    x = np.array([[-1.0], [-1.0], [1.0], [1.0]], np.float32)
    y = np.array([[-np.sqrt(2)], [0.0], [0.0], [np.sqrt(2)]], np.float32)
    assert float(bounds.moment_lower_bound(x, y, 1)) == pytest.approx(0, abs=1e-7)
    assert float(bounds.moment_lower_bound(x, y, 2)) == pytest.approx(0, abs=1e-7)
    # E x^4 = 1, E y^4 = 2, M = sqrt 2
    assert float(bounds.moment_lower_bound(x, y, 4)) == pytest.approx(1 / (4 * 2**1.5), rel=2e-5)


def test_noise_of_the_statistics_enters_u1():
    d, delta, factor = 10, 0.5, 1.2
    zero, one = jnp.zeros(d), jnp.ones(d)
    noisy = bounds.moment_upper_bound_from_statistics(zero, one, zero + delta, one * factor)
    assert float(noisy) == pytest.approx(np.sqrt(d * (1 + factor + delta**2)), rel=WIDENED)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: bounds.pairing_upper_bound(x, x[:2]), r"in x \(=3\) as in y \(=2\); use"),
        (lambda x: bounds.moment_lower_bound(x, x, 0), r"`order` \(=0\) must be an integer >= 1"),
        (lambda x: bounds.moment_lower_bound(x, x, 1.5), r"`order` \(=1.5\) must be an integer"),
        (
            lambda x: bounds.radius_upper_bound(x, x, x),
            r"`point` \(=shape \(3, 2\)\) must have the",
        ),
        (
            lambda x: bounds.projection_lower_bound(x, x, x[:, 0]),
            r"`direction` \(=shape \(3,\)\) must have the trailing shape",
        ),
        (lambda x: bounds.moment_upper_bound(x, x[:, :1]), r"\(3, 2\) and \(3, 1\)"),
        (lambda x: bounds.norm_lower_bound(x, x[:0]), r"`y` must hold at least one sample"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((3, 2)))
