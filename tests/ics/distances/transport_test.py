import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unitnorm_jax.ics.distances import _transport


def solve(cost, a, b):
    return _transport.scipy_transport(*(jnp.asarray(z, float) for z in (cost, a, b)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (20, 13), (40, 40)])
def test_column_generation_solves_the_whole_program(costs, exact_weighted, n, m, seed):
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=(k, 3)) for k in (n, m))
    a, b = rng.random(n), rng.random(m)
    lower, upper, _, _ = _transport.scipy_transport(
        jnp.asarray(costs(x, y), jnp.float32), jnp.asarray(a), jnp.asarray(b)
    )
    truth = exact_weighted(x, y, a, b)
    assert float(lower) <= truth * (1 + 1e-6)
    assert truth * (1 - 1e-6) <= float(upper)
    assert float(upper - lower) <= 1e-6 * truth


def test_small_costs_beside_large_ones_are_solved_too(costs):
    # HiGHS's tolerances are absolute: in units of the largest cost these would vanish.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3))
    y = x + 1e-6 * rng.normal(size=x.shape)
    a = rng.random(12)
    lower, upper, _, _ = _transport.scipy_transport(
        jnp.asarray(costs(x, y), jnp.float32), jnp.asarray(a), jnp.asarray(a)
    )
    paired = np.sum(a * np.linalg.norm(x - y, axis=1)) / a.sum()
    assert float(lower) == pytest.approx(paired, rel=1e-5)
    assert float(upper) == pytest.approx(paired, rel=1e-3)


def test_bounds_hold_when_the_solver_fails(monkeypatch, costs, exact_weighted):
    class Failed:
        status = 4

    monkeypatch.setattr(_transport, "linprog", lambda *args, **kwargs: Failed)
    rng = np.random.default_rng(0)
    x, y, a = rng.normal(size=(5, 2)), rng.normal(size=(6, 2)), rng.random(5)
    with jax.enable_x64(True):
        lower, upper, _, _ = _transport.scipy_transport(
            jnp.asarray(costs(x, y)), jnp.asarray(a), jnp.ones(6)
        )
    truth = exact_weighted(x, y, a)
    assert 0 < float(lower) <= truth * (1 + 1e-9)
    assert truth * (1 - 1e-9) <= float(upper) < np.inf
