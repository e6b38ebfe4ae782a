"""lower <= W1 <= upper by every public function, whatever dtype, size and shape of the samples."""

import inspect
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.ics.catalogue import BOUNDS, DIFFERENT
from unitnorm_jax import ics

pytestmark = pytest.mark.rounding

LONG = ("measure", "em_distance, sinkhorn", "sliced_em_distance")  # to compile
DTYPES = {
    name: np.dtype(getattr(ml_dtypes, name, name))
    for name in ("float64", "float32", "bfloat16", "bool", "uint8", "int32", "int64")
}
SHAPES = ("gaussian", "one point", "duplicates", "all equal", "far point", "permuted", "drift")


def exact(x, y):
    """W1 by trying every pairing, and the costs in rational arithmetic but for the square root."""
    n = len(x)
    x, y = (_rows(z) for z in (x, y))
    cost = [[_root(sum((a - b) ** 2 for a, b in zip(p, q, strict=True))) for q in y] for p in x]
    return min(sum(cost[i][s[i]] for i in range(n)) for s in itertools.permutations(range(n))) / n


def _rows(z):
    number = int if z.dtype.kind in "biu" else lambda v: Fraction(float(v))
    return [[number(v) for v in row] for row in z.reshape(len(z), -1)]


def _root(square):
    """The square root, to 60 digits."""
    scale = 10**120
    square = Fraction(square) * scale**2
    return Fraction(math.isqrt(int(square)), scale)


def draw(shape, dtype, size, offset, seed):
    """Two samples (n, 2) of a dtype."""
    rng = np.random.default_rng(seed)
    n = 1 if shape == "one point" and dtype.name == "float32" else 4  # each n is a program more
    x = rng.normal(size=(n, 2))
    y = x + 0.01 * rng.normal(size=x.shape) if shape == "drift" else rng.normal(size=x.shape)
    if shape == "duplicates":
        x[1], y[2:] = x[0], x[0]
    if shape == "all equal":
        x[:], y[:] = x[0], x[0]
    if shape == "far point":
        x[0] = y[1] = 1e6
    if shape == "permuted":
        y = x[::-1]
    if dtype.kind == "b":
        return x > 0, y > 0
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        wide = [np.clip(z * min(size, 1e15) + offset, info.min / 2, info.max / 2) for z in (x, y)]
        return tuple(z.astype(dtype) for z in wide)
    return tuple((size * z + offset).astype(dtype) for z in (x, y))


def check(bounds, truth, small):
    lower, upper = bounds
    for name, bound in lower.items():
        assert np.isfinite(bound), name
        assert Fraction(float(bound)) <= truth + small, (name, float(bound), float(truth))
    for name, bound in upper.items():
        assert not np.isnan(bound), name
        if np.isfinite(bound):
            assert truth <= Fraction(float(bound)) + small, (name, float(bound), float(truth))


CASES = [
    ("gaussian", "float64", 1.0, 1e8, 0, False, True),
    ("drift", "int64", 1e9, 0.0, 0, False, True),
    ("drift", "int32", 1e9, 0.0, 0, False, False),
    ("gaussian", "float32", 1e30, 0.0, 0, False, False),
    ("gaussian", "float32", 1e-30, 0.0, 0, False, False),
    ("drift", "float32", 1.0, 1e8, 0, False, False),
]


@pytest.mark.parametrize("name", [name for name in BOUNDS if name not in DIFFERENT])
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case[:4])))
def test_bounds_that_measure_has_too(name, case):
    hold(name, *case)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in DIFFERENT]
)
@settings(max_examples=60, deadline=None)
@example(*CASES[0])
@example(*CASES[1])
@example(*CASES[2])
@example(*CASES[3])
@example(*CASES[4])
@example(*CASES[5])
@given(
    st.sampled_from(SHAPES),
    st.sampled_from(list(DTYPES)),
    st.sampled_from([1e-30, 1e-20, 1e-3, 1.0, 1e3, 1e9, 1e20, 1e30]),
    st.sampled_from([0.0, 0.0, 1.0, 1e8]),
    st.integers(0, 2**31),
    st.booleans(),
    st.booleans(),
)
def test_every_bound_holds(name, shape, dtype, size, offset, seed, x64, numpy):
    hold(name, shape, dtype, size, offset, seed, x64, numpy)


def hold(name, shape, dtype, size, offset, seed, x64, numpy):
    x, y = draw(shape, DTYPES[dtype], size, offset, seed)
    function = BOUNDS[name]
    x64 = x64 and dtype in ("float64", "int64")  # others are computed as without
    with jax.enable_x64(x64):
        if not numpy:  # as JAX holds them, narrowed or not: those are the numbers given
            x, y = (np.asarray(jnp.asarray(z)) for z in (x, y))
        truth = exact(x, y)
        arguments = (x, y) if numpy else (jnp.asarray(x), jnp.asarray(y))
        check(function(*arguments), truth, Fraction(1, 10**50))


@pytest.mark.parametrize(
    ("x", "y", "distance"),
    [
        (np.array([[1e8]]), np.array([[1e8 + 1]]), 1),
        (np.array([[2**31]]), np.array([[-(2**31)]]), 2**32),
        (np.array([[2**63 - 1]]), np.array([[-(2**63)]]), 2**64 - 1),
        (np.array([[2**62]]), np.array([[2**62 + 1]]), 1),
        (np.array([[2**64 - 1]], np.uint64), np.array([[2**64 - 4]], np.uint64), 3),
        (np.array([[2**31 - 1]], np.int32), np.array([[-(2**31)]], np.int32), 2**32 - 1),
        (np.array([[2**24]], np.int32), np.array([[2**24 + 1]], np.int32), 1),
        (np.array([[2**32 - 1, 0]], np.uint32), np.array([[2**32 - 2, 0]], np.uint32), 1),
        (np.array([[1e8, 0]]), np.array([[1e8 + 1, 0]], np.float32), 0),  # 1e8 in float32
    ],
)
def test_wide_numbers_are_subtracted_before_they_are_rounded(x, y, distance):
    found = ics.em_distance(x, y)
    assert float(found.lower) <= distance <= float(found.upper)
    assert float(found.value) == pytest.approx(distance, rel=1e-6)
    assert bool(found.exact)
    m = ics.measure(x, y)
    assert float(m.lower["mean"]) == pytest.approx(distance, rel=1e-5)
    assert float(m.upper["pairing"]) == pytest.approx(distance, rel=1e-5)
    on_device = jax.jit(lambda: ics.em_distance(x, y))()  # constants of a traced function
    assert float(on_device.value) == pytest.approx(distance, rel=1e-6)


def test_beside_a_traced_sample_the_cast_widens_the_certificate():
    x, y = np.array([[1e8 + 1.0]]), np.array([[1e8]], np.float32)
    found = jax.jit(lambda y: ics.em_distance(x, y))(y)
    assert float(found.lower) <= 1 <= float(found.upper)
    assert not bool(found.exact)


def test_integers_in_float64_under_x64(x64):
    x, y = jnp.array([[2**62]]), jnp.array([[2**62 + 1]])
    assert float(ics.em_distance(x, y).value) == 1
    assert float(ics.mean_lower_bound(x, y)) == pytest.approx(1)
    found = ics.em_distance(x, jnp.array([[2.0**62]]))  # of floats no integers are made
    assert float(found.lower) == 0 <= float(found.upper)


@pytest.mark.parametrize("value", [1e200, -1e39])
def test_beyond_float32_is_refused(value):
    x, y = np.array([[0.1], [value]]), np.array([[0.1], [0.0]])
    for function in (ics.em_distance, ics.mean_lower_bound, ics.norm_lower_bound, ics.measure):
        with pytest.raises(ValueError, match=r"float64 sample holds numbers of size 1e\+.*float32"):
            function(x, y)
    mask = np.array([True, False])
    assert float(ics.em_distance(x, y, mask, mask).value) == 0  # masked: ignored


def test_no_dtype_that_jax_does_not_have():
    x = np.zeros((2, 1), np.longdouble)
    if x.dtype.itemsize == 8:
        pytest.skip("long double is float64 here")
    with pytest.raises(ValueError, match=r"`x` must be of a dtype that JAX has, but is float128"):
        inspect.unwrap(ics.em_distance)(x, x)


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.int4, bool])
def test_small_dtypes(dtype):
    x, y = jnp.array([[0, 1], [1, 1]], dtype), jnp.array([[1, 0], [1, 1]], dtype)
    assert float(ics.em_distance(x, y).value) == pytest.approx(0.5**0.5)
    assert float(ics.radius_upper_bound(x, y)) >= 0.5**0.5


def test_one_bit_of_room_for_the_square_of_a_sum():
    """(s / n)^2 is compiled as s^2 / n^2."""
    x = jnp.zeros((32, 1)).at[1].set(4.0)
    y = x + 4
    sliced = ics.sliced_em_distance(x, y, jax.random.key(0), num_directions=1)
    m = ics.measure(x, y)
    lower = [sliced.lower, ics.coordinate_em_distance(x, y).lower, m.lower["coordinates"]]
    for bound in (*lower, m.lower["mean"], m.lower["norm"], m.lower["projection"]):
        assert 4 * (1 - 1e-5) <= float(bound) <= 4
    assert np.isfinite(m.relative.upper)
    assert bool(m.relative.exact)


@pytest.mark.parametrize("size", [1e-33, 1e-22, 1e20, 1e32, 1e38])
def test_measure_does_not_depend_on_the_unit(size, pair):
    x, y = pair("gaussian", "drift", 6, 3, 0)
    one, other = ics.measure(x, y), ics.measure(x * np.float32(size), y * np.float32(size))
    assert bool(one.pairing_optimal) == bool(other.pairing_optimal)
    for sides in ((one.upper, other.upper), (one.lower, other.lower)):
        for name, bound in sides[0].items():
            # A product with `size` is rounded.
            close = pytest.approx(float(bound) * size, rel=1e-4, abs=1e-5 * size)
            assert float(sides[1][name]) == close, name
    assert not bool(ics.measure(x * np.float32(size), x[::-1] * np.float32(size)).pairing_optimal)


def test_what_overflows_is_not_exact():
    x = np.full((2, 1), 3e38, np.float32)
    for found in (ics.em_distance(x, -x), ics.em_distance(x, -x[:1])):
        assert float(found.lower) == np.finfo(np.float32).max
        assert float(found.upper) == np.inf
        assert not bool(found.exact)
    assert not bool(ics.measure(x, -x).pairing_optimal)


def test_an_open_gap_is_not_exact():
    """A drift that underflows beside a far point."""
    x = np.array([[1e32, 0], [0, 0], [1, 1]], np.float32)
    y = x.copy()
    y[1] = 1e-7
    found = ics.em_distance(x, y)
    truth = np.sqrt(2) * 1e-7 / 3
    assert float(found.lower) <= truth <= float(found.upper)
    assert bool(found.exact) == (float(found.upper - found.lower) <= 1e-5 * float(found.upper))


def test_relative_to_a_spread_that_underflows():
    x = np.array([[1e10, 1e-30], [1e10, 3e-30]], np.float32)
    y = x + np.array([[1e3, 0]], np.float32)
    relative = ics.relative(ics.em_distance(x, y), x)
    truth = np.linalg.norm(x.astype(float) - y, axis=1).mean() / 1e-30
    assert float(relative.lower) <= truth <= float(relative.upper)
    assert np.isfinite(relative.lower)
    assert not bool(relative.exact)


@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15, 1e25])
def test_moments_of_any_size(size):
    rng = np.random.default_rng(0)
    means, deviations = size * rng.normal(size=(2, 5)), size * rng.random((2, 5))
    truth = np.sqrt(np.sum(deviations**2) + np.sum((means[0] - means[1]) ** 2))
    arguments = [f(k) for k in (0, 1) for f in (lambda k: means[k], lambda k: deviations[k] ** 2)]
    if size > 1e19:
        with pytest.raises(ValueError, match="float64 sample holds numbers of size"):
            ics.moment_upper_bound_from_statistics(*arguments)
        return
    bound = float(ics.moment_upper_bound_from_statistics(*arguments))
    assert truth * (1 - 1e-14) <= bound <= truth * (1 + 1e-5)
    with pytest.raises(
        ValueError, match=r"`y_var` \(=shape \(4,\)\) must have the shape of `x_mean`"
    ):
        inspect.unwrap(ics.moment_upper_bound_from_statistics)(*arguments[:3], arguments[3][:4])


@pytest.mark.parametrize("size", [1e-46, 1e-60, 1e-300])
def test_differences_below_all_of_float32_are_not_certified_to_be_none(size):
    x, y = np.full((4, 1), size), np.full((4, 1), 3 * size)
    d = ics.em_distance(x, y)
    assert float(d.lower) <= 2 * size <= float(d.upper)
    assert not d.exact


def test_a_negative_variance_is_no_bound_of_nothing():
    z = jnp.zeros(1)
    assert np.isnan(ics.moment_upper_bound_from_statistics(z, z - 1, z, z + 0.5))
