import inspect

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.ics.samples import KINDS, RELATIONS, assert_certified, swapped
from unitnorm_jax import ics
from unitnorm_jax.ics.distances import _rounding

pytestmark = pytest.mark.rounding

SHAPES = st.sampled_from([(1, 3), (7, 1), (16, 2), (24, 40)])


@settings(max_examples=150, deadline=None)
@example("degenerate", "tiny", (16, 2), 1, 1e-30, 0.0)  # a subnormal coordinate
@given(
    KINDS,
    RELATIONS,
    SHAPES,
    st.integers(0, 2**31),
    st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
    st.sampled_from([0.0, 1.0, 1e4]),
)
def test_certificate_holds_in_float32(exact, pair, kind, relation, shape, seed, scale, offset):
    x, y = pair(kind, relation, *shape, seed, scale, offset * scale)
    truth = exact(x, y)
    distance = ics.em_distance(x, y)
    assert_certified(distance, truth)
    assert bool(distance.exact)
    assert float(distance.upper - distance.lower) <= 1.1e-5 * truth
    assert float(distance.value) == pytest.approx(truth, rel=1e-5, abs=0)


@pytest.mark.parametrize(
    ("n", "d", "relation"),
    [(200, 64, "independent"), (6, 1_000_000, "drift"), (1, 100_000, "drift")],
)
def test_sizes(exact, pair, n, d, relation):
    x, y = pair("gaussian", relation, n, d, 0)
    distance = ics.em_distance(x, y)
    assert_certified(distance, exact(x, y))
    assert bool(distance.exact)


def test_subnormal_coordinates_count(exact):
    """Arithmetic on a processor takes them for 0: a bound that did would not hold."""
    x, y = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
    y[0] = [1e-36, 8e-39, -8e-39]
    y[1] = [2e-37, 1e-45, 1e-38]
    truth = exact(x, y)
    distance = ics.em_distance(x, y)
    assert_certified(distance, truth)
    assert float(distance.upper - distance.lower) <= 1.1e-5 * truth
    scaled = _rounding.times_power_of_two(jnp.asarray(y), jnp.asarray(120))
    np.testing.assert_array_equal(np.asarray(scaled, np.float64), y.astype(np.float64) * 2.0**120)


def test_four_thousand_samples():
    x = np.random.default_rng(0).integers(-1000, 1000, (4096, 2)).astype(np.float32)
    distance = ics.em_distance(x, x + np.array([[3, 4]], np.float32), method="pairing")
    assert_certified(distance, 5.0)  # a translation
    assert bool(distance.exact)


def test_tiny_drift_is_resolved_far_below_the_gram_form(exact):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 16)).astype(np.float32)
    y = x * np.float32(1 + 2**-20)
    distance, truth = ics.em_distance(x, y), exact(x, y)
    assert truth < 1e-5
    assert_certified(distance, truth)
    assert float(distance.upper - distance.lower) < 1e-5 * truth
    # The certificate needed no solver.
    assert bool(ics.em_distance(x, y, method="pairing").exact)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e-30, 1e30])
def test_identical_samples_are_exactly_zero(scale):
    x = jnp.asarray(scale * np.random.default_rng(0).normal(size=(9, 5)), jnp.float32)
    assert ics.em_distance(x, x) == (0, 0, 0, True)
    # Found by the solver, not by the pairing.
    assert ics.em_distance(x, x[::-1]) == (0, 0, 0, True)
    assert ics.em_distance(x[:, :1], x[::-1, :1]) == (0, 0, 0, True)


def test_subnormal_differences_do_not_break_the_upper_bound():
    for d in (1, 2):
        x, y = np.zeros((2, d), np.float32), np.full((2, d), 1e-40, np.float32)
        assert float(ics.em_distance(x, y).lower) == 0
        assert float(ics.em_distance(x, y).upper) > 1e-38


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int32])
def test_dtypes_are_computed_in_float32(exact, dtype):
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.integers(-20, 20, (16, 2, 3)) / 2, dtype) for _ in range(2))
    distance = ics.em_distance(x, y)
    assert distance.value.dtype == jnp.float32
    assert_certified(distance, exact(np.asarray(x, np.float64), np.asarray(y, np.float64)))


def test_float64_has_a_float64_certificate(exact, pair):
    with jax.enable_x64(True):
        x, y = (z.astype(np.float64) * np.pi for z in pair("gaussian", "independent", 16, 5, 0))
        distance, truth = ics.em_distance(x, y), exact(x, y)
        assert distance.value.dtype == jnp.float64
        assert_certified(distance, truth)
        assert float(distance.upper - distance.lower) < 1e-13 * truth
        assert ics.em_distance(np.arange(4), np.arange(4) + 2**40).value == 2.0**40


@pytest.mark.parametrize("d", [1, 3])
def test_non_finite_samples_give_nan_and_never_exact(d):
    x = np.zeros((4, d), np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        y = x.copy()
        y[2, 0] = bad
        for distance in (ics.em_distance(x, y), ics.em_distance(y, x)):
            assert np.isnan([distance.value, distance.lower, distance.upper]).all()
            assert not bool(distance.exact)


def test_methods_agree_where_the_pairing_is_not_optimal(exact):
    x, y = swapped()
    truth = exact(x, y)
    pairing = ics.em_distance(x, y, method="pairing")
    assert_certified(pairing, truth)
    assert not bool(pairing.exact)
    hungarian = optax.assignment.hungarian_algorithm
    for method in ("auto", "scipy", hungarian, lambda cost: jnp.argmin(cost, axis=1)):
        distance = ics.em_distance(x, y, method=method)
        assert_certified(distance, truth)
        assert bool(distance.exact)
    sinkhorn = ics.em_distance(x, y, method="sinkhorn")
    assert_certified(sinkhorn, truth)
    assert float(sinkhorn.upper) < 1.1 * truth


def test_solver_is_not_run_when_the_pairing_is_proven():
    calls = []

    def solver(cost):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.arange(cost.shape[0])

    x, y = swapped()
    ics.em_distance(x, x + np.float32(0.5), method=solver).value.block_until_ready()
    jax.effects_barrier()
    assert not calls
    ics.em_distance(x, y, method=solver).value.block_until_ready()
    jax.effects_barrier()
    assert calls


def test_a_wrong_solver_gives_wide_bounds_not_wrong_ones(exact):
    x, y = swapped()
    measure = jax.jit(lambda answer: ics.em_distance(x, y, method=lambda cost: answer))
    twice, out, poor, negative = [0, 0, 0], [1, 2, 3], [2, 0, 1], [-1, 0, 1]
    for answer in (twice, out, poor, negative):
        distance = measure(jnp.array(answer))
        assert_certified(distance, exact(x, y))
        assert not bool(distance.exact)
    assert bool(measure(jnp.array([1, 0, 2])).exact)


def test_does_not_recompile_and_runs_under_jit_vmap_and_map(exact, pair):
    pairs = [pair("gaussian", r, 8, 3, i) for i, r in enumerate(["drift", "independent"] * 2)]
    x, y = (np.stack(z) for z in zip(*pairs, strict=True))
    truth = [exact(*p) for p in pairs]

    @jax.jit
    @chex.assert_max_traces(n=1)
    def measure(a, b):
        return ics.em_distance(a, b)

    for p, t in zip(pairs, truth, strict=True):
        assert_certified(measure(*p), t)
    for mapped in (
        jax.vmap(ics.em_distance),
        lambda a, b: jax.lax.map(lambda p: measure(*p), (a, b)),
    ):
        np.testing.assert_allclose(mapped(x, y).value, truth, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": np.zeros((0, 2))}, r"`x` must hold at least one sample.*\(0, 2\); give it as"),
        ({"y": np.zeros((3, 0))}, r"`y` must hold at least one sample.*\(3, 0\); give it as"),
        ({"x": np.zeros(())}, r"`x` must hold at least one sample.*has shape \(\); give it as"),
        ({"x": np.zeros((3, 2), complex)}, r"`x` must be real, but is complex128; convert it"),
        ({"y": np.zeros((3, 4))}, r"agree in all axes but the first.*\(3, 2\) and \(3, 4\)"),
        ({"x_weights": np.ones(2)}, r"`x_weights` \(=shape \(2,\)\) must hold one weight per"),
        ({"y_weights": np.ones((3, 1))}, r"`y_weights` \(=shape \(3, 1\)\) must hold one weight"),
        ({"method": "exact"}, r"`method` \(='exact'\) must be one of auto, pairing, scipy, sink"),
        (
            {"y": np.zeros((4, 2)), "method": "pairing"},
            r"needs paired samples, but x has 3 and y 4",
        ),
        ({"y": np.zeros((4, 2)), "method": len}, r"as many samples in x \(=3\) as in y \(=4\)"),
        ({"x_weights": np.ones(3), "method": len}, r"and no weights; use 'auto', or 'sinkhorn'"),
        ({"method": lambda c: jnp.arange(2)}, r"of shape \(3,\), but returned \(2,\); return a"),
        ({"method": lambda c: (c[0], c)}, r"but returned \(3,\) and \(3, 3\); return a permut"),
        ({"method": lambda c: (c, c, c)}, r"`method` returned 3 arrays; return the column"),
    ],
)
def test_errors(arguments, message):
    x, y = swapped()
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(ics.em_distance)(**({"x": x, "y": y} | arguments))  # past jaxtyping
