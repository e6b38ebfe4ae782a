"""The Earth Mover distance against what else computes it."""

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from experiments.common import timing
from unitnorm_jax import ics

_ACCURACY = 0.01  # of Sinkhorn's cost, relative
_SINKHORN_SECONDS = 20.0  # search for an epsilon no longer than this


@dataclasses.dataclass(frozen=True)
class DistanceRow:
    """One pair of samples.

    Attributes:
        n: Samples on each side.
        d: Dimension.
        case: "drift" or "independent".
        cost_ms: Time of the cost matrix.
        ms: Time of each way, the cost matrix given; None where it did not get there.
        ratios: Time against ours: median and quartiles of the pairs.
        gap: Relative gap of our certificate.
        sinkhorn_error: Relative error of Sinkhorn's cost.
    """

    n: int
    d: int
    case: str
    cost_ms: float
    ms: dict[str, float | None]
    ratios: dict[str, tuple[float, float, float]]
    gap: float
    sinkhorn_error: float


def measure(n: int, d: int, case: str, drift: float, seconds: float) -> DistanceRow:
    """Time every way on one pair of samples, in turns, in one process."""
    os.environ.setdefault("POT_BACKEND_DISABLE_TENSORFLOW", "1")  # seconds, and warnings
    import ot  # The dependency group `bench`.

    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d)).astype(np.float32)
    change = rng.normal(size=(n, d)).astype(np.float32)
    y = x + np.float32(drift) * change if case == "drift" else change
    x, y = jax.device_put((x, y))
    build = jax.jit(ics.cost_matrix)
    cost = jax.block_until_ready(build(x, y))
    on_host, weights = np.asarray(cost, np.float64), np.full(n, 1 / n)
    exact = on_host[linear_sum_assignment(on_host)].mean()
    certify = jax.jit(ics.em_distance_from_costs)
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: certify(cost, x, y),
        "scipy": lambda: on_host[linear_sum_assignment(on_host)].mean(),
        "POT": lambda: ot.emd2(weights, weights, on_host, numItermax=10**7),
    }
    sinkhorn, error = _sinkhorn(cost, exact)
    if sinkhorn is not None:
        ways["Sinkhorn (OTT-JAX)"] = functools.partial(sinkhorn, cost)
    times = timing.interleaved(ways, seconds, least=5)
    matrix = timing.interleaved({"cost": lambda: build(x, y)}, seconds / 4, least=5)
    result = certify(cost, x, y)
    names = ("ours", "scipy", "POT", "Sinkhorn (OTT-JAX)")
    return DistanceRow(
        n=n,
        d=d,
        case=case,
        cost_ms=float(1e3 * np.median(matrix["cost"])),
        ms={k: float(1e3 * np.median(times[k])) if k in times else None for k in names},
        ratios={k: timing.ratio(times, k, "ours") for k in times},
        gap=float((result.upper - result.lower) / result.upper),
        sinkhorn_error=error,
    )


def _sinkhorn(cost: jax.Array, exact: float) -> tuple[Callable[[jax.Array], Any] | None, float]:
    """OTT-JAX's Sinkhorn with the largest epsilon that is accurate enough; None if none was."""
    start, epsilon, error = time.perf_counter(), 0.05, np.inf
    solve = _solve_regularized()
    while time.perf_counter() - start < _SINKHORN_SECONDS and epsilon > 1e-6:
        scale = jnp.asarray(epsilon * float(jnp.mean(cost)))
        error = abs(float(solve(cost, scale)) / exact - 1)
        if error <= _ACCURACY:
            return lambda cost, scale=scale: solve(cost, scale), error
        epsilon /= 2
    return None, error


@functools.cache  # One program for each n, whatever the epsilon.
def _solve_regularized() -> Callable[[jax.Array, jax.Array], jax.Array]:
    from ott.geometry import geometry
    from ott.solvers import linear

    @jax.jit
    def solve(cost: jax.Array, epsilon: Any) -> jax.Array:
        output = linear.solve(geometry.Geometry(cost, epsilon=epsilon), max_iterations=5000)
        return jnp.sum(output.matrix * cost)

    return solve
