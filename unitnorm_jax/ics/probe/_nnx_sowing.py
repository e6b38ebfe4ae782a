"""What the calls of an nnx model's modules leave, by ``nnx.capture``."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from unitnorm_jax.ics.probe._estimation import shift_at

PLACE = "_ics_place"  # on copies of the model only
_NAME = "ics"

Leave = Callable[[Any, Any, Any, Any, Any], Any]
"""What a call leaves, from the statistics before it, its module, arguments and output."""


class Output(nnx.Intermediate):
    """Never the type of what the model itself sows."""


class Calls(NamedTuple):
    """What was seen of the calls of one module."""

    kind: str
    keeps: bool
    written: list[bool]
    ndims: list[list[int]]


@contextlib.contextmanager
def sowing_calls(
    kind: type, calls: dict[str, Calls], active: set[int], leave: Leave
) -> Iterator[None]:
    """While it is open, wanted modules of a class sow what their calls return."""
    method: Any = kind.__call__
    own = "__call__" in vars(kind)

    @functools.wraps(method)
    def sowing(self: Any, *args: Any, **kwargs: Any) -> Any:
        place = vars(self).get(PLACE)
        if place is None or id(self) in active:  # the latter: super().__call__
            return method(self, *args, **kwargs)
        before = _statistics(self)
        active.add(id(self))
        seen = calls.setdefault(place[0], Calls(type(self).__name__, keeps(self), [], []))
        try:
            y = method(self, *args, **kwargs)
        finally:
            active.discard(id(self))
        written = any(a is not b for a, b in zip(before, _statistics(self), strict=True))
        seen.written.append(written)
        seen.ndims.append([np.ndim(leaf) for leaf in jax.tree.leaves(y)])
        self.sow(Output, _NAME, leave(before, self, args, kwargs, y))
        return y

    kind.__call__ = sowing  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own:
            kind.__call__ = method  # type: ignore[method-assign]
        else:
            del kind.__call__


def marker(statistics: Any, module: Any, args: Any, kwargs: Any, y: Any) -> Any:
    return jax.tree.map(lambda z: jnp.zeros((0,) * np.ndim(z)), y)


def shift_of_call(statistics: Any, module: Any, args: Any, kwargs: Any, y: Any) -> Any:
    del y
    mean, var = statistics or (None, None)
    return shift_at(mean, var, getattr(module, "axis", -1), args, kwargs)


def keeps(module: Any) -> bool:
    return all(isinstance(getattr(module, n, None), nnx.BatchStat) for n in ("mean", "var"))


def _statistics(module: Any) -> list[Any]:
    return [getattr(module, name).get_value() for name in ("mean", "var")] if keeps(module) else []


def found_at(captured: Any, path: tuple[Any, ...]) -> Any:
    for part in (*path, _NAME):
        if part not in captured:
            return None
        captured = captured[part]
    return captured.get_value()
