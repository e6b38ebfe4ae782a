"""Checks that the configurations share."""

import math


def positive(**values: float) -> None:
    """Raises ``ValueError`` naming the first of ``values`` that is not a positive number."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"`{name}` (={value}) must be a positive number.")


def not_negative(**values: float) -> None:
    """Raises ``ValueError`` naming the first of ``values`` that is negative or not finite."""
    for name, value in values.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"`{name}` (={value}) must be zero or a positive number.")
