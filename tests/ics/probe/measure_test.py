import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax import ics
from unitnorm_jax.ics.probe._measure_all import measure_all


@pytest.mark.parametrize("relation", ["drift", "independent", "same"])
def test_bounds_hold_and_the_pairing_is_judged(exact, pair, relation):
    x, y = pair("gaussian", relation, 24, 5, 0)
    m = ics.measure(x, y)
    truth = exact(x, y)
    assert float(m.distance.lower) <= truth * (1 + 1e-12)
    assert truth <= float(m.distance.upper) * (1 + 1e-12)
    for name, bound in m.lower.items():
        assert float(bound) <= truth * (1 + 1e-14), name
    for name, bound in m.upper.items():
        assert truth * (1 - 1e-14) <= float(bound), name
    # Independent samples: the pairing is one of 24! and not the best.
    paired = np.mean(np.linalg.norm(x.astype(float) - y, axis=1))
    assert bool(m.pairing_optimal) == (paired <= truth * (1 + 1e-5)) == (relation != "independent")
    assert float(m.spread) == pytest.approx(np.mean(np.linalg.norm(x - x.mean(0), axis=1)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("side", ["before", "after"])
def test_what_is_not_finite_makes_every_number_nan(pair, bad, side):
    x, y = pair("gaussian", "drift", 24, 5, 0)
    (x if side == "before" else y)[3, 2] = bad
    m = ics.measure(x, y)
    numbers = [*m.distance[:3], *m.relative[:3], m.spread, *m.upper.values(), *m.lower.values()]
    assert all(np.isnan(number) for number in numbers)
    assert not m.distance.exact
    assert not m.pairing_optimal
    assert (bool(m.finite_before), bool(m.finite_after)) == (side == "after", side == "before")


def test_zero_shift_and_zero_spread():
    m = ics.measure(np.ones((24, 5), np.float32), np.ones((24, 5), np.float32))
    assert float(m.distance.value) == 0
    assert bool(m.pairing_optimal)
    assert np.isnan(m.relative.value)


@pytest.mark.parametrize("size", [1e-44, 1e-40])
def test_samples_of_subnormal_numbers(exact, size):
    """Arithmetic takes them for 0, which is no upper bound on how far they are apart."""
    x = (size * np.random.default_rng(0).normal(size=(8, 4))).astype(np.float32)
    wide, truth = x.astype(np.float64), exact(x.astype(np.float64), -x.astype(np.float64))
    spread = np.mean(np.linalg.norm(wide - wide.mean(0), axis=1))
    block = jnp.asarray(x[None]), jnp.asarray(-x[None])
    tiles = jax.device_get(measure_all([block], "auto", 1e-5)).measure()
    for m in (ics.measure(x, -x), jax.tree.map(lambda a: a[0], tiles)):
        assert float(m.distance.lower) <= truth <= float(m.distance.upper) < 1e-17
        assert all(float(bound) >= truth for bound in m.upper.values())
        assert all(float(bound) <= truth for bound in m.lower.values())
        low, high = float(m.relative.lower), float(m.relative.upper)
        assert np.isnan(low) or low <= truth / spread <= high
