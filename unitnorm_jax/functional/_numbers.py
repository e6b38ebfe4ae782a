"""Whether an argument is a number of a range, where that is known at trace time."""

import math
from typing import Any

import jax


def is_within(value: Any, least: float | int, greatest: float | int = math.inf) -> bool:
    """Whether ``value`` is a finite scalar of [least, greatest]; True for a traced scalar.

    Anything else, text and None and arrays of several numbers among it, is not.
    """
    if isinstance(value, jax.core.Tracer):
        return value.shape == ()
    if isinstance(value, str | bytes):
        return False
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return math.isfinite(number) and least <= number <= greatest
