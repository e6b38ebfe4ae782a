"""Time several functions against each other: interleaved, in one process, median of many."""

import ctypes
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def keep_freed_pages() -> bool:
    """Have the C library keep freed memory mapped; False where it cannot.

    A compiled program takes and frees its work space at every call. Unless freed pages stay with
    the process, what is timed is the kernel clearing pages, more than the arithmetic. Within the
    one program of a real training step a layer's work space is reused, so this is the fair side.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    accepted = [
        mallopt(_M_ARENA_MAX, 1),
        mallopt(_M_MMAP_THRESHOLD, 1 << 30),
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1),
        mallopt(_M_TOP_PAD, 1 << 28),
    ]
    return min(accepted) == 1


def interleaved(
    functions: Mapping[str, Callable[[], Any]], seconds: float, least: int = 15
) -> dict[str, np.ndarray]:
    """Call all functions in turn for about ``seconds``, at least ``least`` rounds.

    Each round has another random order: what ran before decides what is left in the caches.

    Args:
      functions: name to a function that returns its JAX results.
      seconds: how long to go on, after two rounds that are not counted.
      least: the least number of rounds.

    Returns:
      For each name, the seconds of every call, in the order of the rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    named, rng = list(functions.items()), np.random.default_rng(0)
    start, rounds = time.perf_counter(), -2
    while rounds < least or time.perf_counter() - start < seconds:
        for i in rng.permutation(len(named)):
            name, function = named[i]
            begin = time.perf_counter()
            jax.block_until_ready(function())
            if rounds >= 0:
                times[name].append(time.perf_counter() - begin)
        rounds += 1
        if rounds == 0:
            start = time.perf_counter()
    return {name: np.asarray(values) for name, values in times.items()}


def ratio(times: Mapping[str, np.ndarray], name: str, base: str) -> tuple[float, float, float]:
    """Median of the paired ratios ``name / base``, and their quartiles."""
    low, median, high = np.percentile(times[name] / times[base], [25, 50, 75])
    return float(median), float(low), float(high)
