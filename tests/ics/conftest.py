"""Float64 oracles that share nothing with the library, and pairs of awkward samples."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog

KINDS = ("gaussian", "heavy", "discrete", "degenerate")
RELATIONS = ("independent", "drift", "tiny", "permuted", "shifted", "same")


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


def _costs(x, y):
    x, y = (np.asarray(z).astype(np.float64).reshape(len(z), -1) for z in (x, y))
    return np.stack([np.sqrt(np.sum((row - y) ** 2, axis=1)) for row in x])


def _exact(x, y):
    cost = _costs(x, y)
    return float(cost[linear_sum_assignment(cost)].mean())


def _exact_weighted(x, y, a=None, b=None):
    """The whole linear program, all n m variables, dense marginal constraints."""
    cost = _costs(x, y)
    n, m = cost.shape
    a, b = (np.ones(k) if w is None else np.asarray(w, np.float64) for w, k in ((a, n), (b, m)))
    marginals = np.concatenate([a / a.sum(), b / b.sum()])
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    unit = cost.max() if cost.max() > 0 else 1.0
    result = linprog(cost.ravel() / unit, A_eq=np.concatenate([rows, columns]), b_eq=marginals)
    assert result.status == 0
    return float(result.fun) * unit


def _pair(kind, relation, n, d, seed, scale=1.0, offset=0.0):
    """Two float32 samples; the relation is applied before the rounding to float32."""
    rng = np.random.default_rng(seed)

    def draw():
        if kind == "heavy":
            return np.clip(rng.standard_cauchy((n, d)), -1e6, 1e6)
        if kind == "discrete":
            return rng.integers(-1, 2, (n, d)).astype(float)
        if kind == "degenerate":
            return rng.integers(0, 2, (n, 1)) * rng.normal(size=(1, d))
        return rng.normal(size=(n, d))

    x = draw()
    y = {
        "independent": draw,
        "drift": lambda: x + 0.03 * rng.normal(size=(n, d)),
        "tiny": lambda: x + 1e-6 * rng.normal(size=(n, d)),
        "permuted": lambda: x[rng.permutation(n)],
        "shifted": lambda: x + rng.normal(size=(1, d)),
        "same": lambda: x.copy(),
    }[relation]()
    return tuple((scale * z + offset).astype(np.float32) for z in (x, y))


@pytest.fixture(scope="session")
def costs():
    return _costs


@pytest.fixture(scope="session")
def exact():
    return _exact


@pytest.fixture(scope="session")
def exact_weighted():
    return _exact_weighted


@pytest.fixture(scope="session")
def pair():
    return _pair
