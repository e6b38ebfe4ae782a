"""Time of the certified distance against scipy: ``python -m experiments.bounds.speed``.

Expected: about two minutes on two CPU cores. For a small drift the certificate costs little more
than the cost matrix; for independent samples an assignment solver runs, and takes the time.
"""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from unitnorm_jax import ics
from unitnorm_jax.ics.distances._cost import cost_matrix


@dataclasses.dataclass(frozen=True)
class Config:
    """Times ics.em_distance beside scipy (cdist, linear_sum_assignment), in turns, in ms.

    Columns: the cost matrix alone; em_distance with its host solver; em_distance with optax's
    jittable Hungarian, the choice on accelerators; cdist and scipy's solver in float64, which
    give no certificate; the relative gap between the certified bounds.
    """

    samples: tuple[int, ...] = (64, 256, 1024)
    """Samples n of each side."""
    dimensions: tuple[int, ...] = (16, 256, 4096)
    """Dimensions d."""
    drift: float = 0.01
    """Drift per coordinate, in standard deviations, of the paired case."""
    independent_below: int = 2**28
    """Independent samples are timed where n n d is at most this."""
    repeats: int = 5
    """Times each is run."""


def main(config: Config) -> None:
    """Time and print."""
    table = Table(title=f"ms, least of {config.repeats}; {jax.devices()[0].device_kind}")
    for name in ("n", "d", "", "cost", "scipy host", "optax", "scipy alone", "gap"):
        table.add_column(name, justify="right")
    rng = np.random.default_rng(0)
    for n in config.samples:
        for d in config.dimensions:
            x = rng.normal(size=(n, d)).astype(np.float32)
            drifted = x + config.drift * rng.normal(size=x.shape).astype(np.float32)
            table.add_row(*map(str, (n, d)), "drifted", *measure(x, drifted, config.repeats))
            if n * n * d <= config.independent_below:
                other = rng.normal(size=x.shape).astype(np.float32)
                table.add_row(*map(str, (n, d)), "independent", *measure(x, other, config.repeats))
    Console().print(table)


def measure(x: np.ndarray, y: np.ndarray, repeats: int) -> list[str]:
    """Milliseconds of each way, and the relative gap of the certificate."""
    on_device, in_double = [
        [jnp.asarray(z) for z in (x, y)],
        [z.astype(np.float64) for z in (x, y)],
    ]
    hungarian = functools.partial(ics.em_distance, method=optax.assignment.hungarian_algorithm)
    ways: list[Callable[[], object]] = [
        functools.partial(_cost, *on_device),
        functools.partial(ics.em_distance, *on_device),
        functools.partial(hungarian, *on_device),
        functools.partial(_scipy, *in_double),
    ]
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats + 1):
        for way, spent in zip(ways, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(way())
            spent.append(1e3 * (time.perf_counter() - start))
    distance = ics.em_distance(*on_device)
    gap = float((distance.upper - distance.lower) / distance.upper)
    return [f"{min(spent[1:]):.2f}" for spent in times] + [f"{gap:.1e}"]


_cost = jax.jit(cost_matrix)


def _scipy(x: np.ndarray, y: np.ndarray) -> float:
    cost = cdist(x, y)
    return cost[linear_sum_assignment(cost)].mean()


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m experiments.bounds.speed"))
