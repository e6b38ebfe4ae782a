import math

import numpy as np
import pytest
from scipy.optimize import linprog

from unitnorm_jax.ics.distances._network_simplex import dual_value, masses, network_simplex


def optimum(cost, a, b):
    n, m = cost.shape
    equations = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    return linprog(cost.ravel(), A_eq=equations, b_eq=np.concatenate([a, b])).fun


def solve(cost, a, b, start="cheapest"):
    supply, demand, total = masses(a, b)
    order = np.argsort(cost, axis=None) if start == "cheapest" else np.zeros(0, int)
    flows, g = network_simplex(cost, supply, demand, *np.divmod(order, cost.shape[1]))
    for side, wanted in ((0, supply), (1, demand)):
        carried = [sum(f for p, f in flows.items() if p[side] == k) for k in range(len(wanted))]
        assert carried == wanted  # exactly
    assert min(flows.values()) > 0
    value = sum(f * cost[pair] for pair, f in flows.items()) / total
    return value, dual_value(cost, supply, demand, total, g)


@pytest.mark.parametrize("start", ["cheapest", "nothing"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (7, 4), (9, 9)])
def test_solves_from_any_start(shape, start):
    rng = np.random.default_rng(0)
    for weighted in (False, True):
        cost = rng.random(shape)
        a, b = (rng.random(k) if weighted else np.ones(k) for k in shape)
        value, lower = solve(cost, a, b, start)
        assert value == pytest.approx(optimum(cost, a / a.sum(), b / b.sum()), rel=1e-6)
        assert lower <= value * (1 + 1e-15)
        assert lower == pytest.approx(value, rel=1e-12)


def test_masses_have_the_ratios_exactly():
    supply, demand, total = masses(np.array([1, 2], np.int8), np.array([0.5, 0.25, 1.25]))
    assert (supply, demand, total) == ([8, 16], [6, 3, 15], 24)
    supply, _, total = masses(np.array([1e-300, 1e300]), np.ones(1, bool))
    assert supply[0] / supply[1] == 0 < supply[0]
    assert sum(supply) == total
    assert math.gcd(*supply) == 1


def test_any_potential_gives_a_lower_bound():
    rng = np.random.default_rng(0)
    cost, a = rng.random((6, 5)), rng.random(6)
    truth = optimum(cost, a / a.sum(), np.full(5, 0.2))
    for size in (0, 1, 1e8, 1e-300):
        assert dual_value(cost, *masses(a, np.ones(5)), size * rng.normal(size=5)) <= truth
