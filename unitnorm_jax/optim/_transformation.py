"""The pair of functions that optax calls a gradient transformation."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Transformation(NamedTuple):
    """A gradient transformation, as ``optax.chain`` and all of optax take it.

    Attributes:
        init: maps parameters to a state.
        update: maps (updates, state, params) to (updates, state).
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]


def stateless(update: Callable[[Any, Any], Any]) -> Transformation:
    """Return the transformation of a function of (updates, params)."""
    return Transformation(
        lambda params: (),
        lambda updates, state, params=None: (update(updates, params), state),
    )
