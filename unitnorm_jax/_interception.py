"""The one way in which the library intercepts the methods of Flax modules."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn

_passes = itertools.count()


@contextlib.contextmanager
def intercepted(interceptor: Any) -> Iterator[None]:
    """``nn.intercept_methods`` that leaves the stack of interceptors as it found it.

    Flax takes its interceptor off inside an ``assert``. Under ``python -O`` there is none, and the
    interceptor would see every module from then on.

    Args:
        interceptor: As ``nn.intercept_methods`` takes it.
    """
    if __debug__:
        with nn.intercept_methods(interceptor):
            yield
        return
    stack = nn.module._global_interceptor_stack
    depth = len(stack)
    try:
        with nn.intercept_methods(interceptor):
            yield
    finally:
        while len(stack) > depth:  # also what users' contexts inside left there
            stack.pop()


@contextlib.contextmanager
def intercepted_first(interceptor: Any) -> Iterator[None]:
    """Intercept before all other interceptors, those that were there already among them.

    An interceptor that makes another layer of a module must be the first: whatever comes after it,
    a probe or the user's own, then sees the new layer, and once. The stack is left as it was found.

    Args:
        interceptor: As ``nn.intercept_methods`` takes it. One of the same type that is there
            already is out of the way meanwhile: of two that decide, the inner one does.
    """
    found = interceptors()
    kept = [other for other in found if type(other) is not type(interceptor)]
    _replace([interceptor, *kept])
    try:
        yield
    finally:
        _replace(found)


def interceptors() -> list[Any]:
    """Return the interceptors of this thread; the first one is called first."""
    return list(nn.module._global_interceptor_stack)[::-1]


def _replace(wanted: list[Any]) -> None:
    stack = nn.module._global_interceptor_stack
    while len(stack):
        stack.pop()
    for interceptor in wanted:
        stack.push(interceptor)


def new_pass() -> str:
    """Return a name that no other pass over a model had or will have.

    Modules under ``nn.jit`` keep the programs that they were traced to, without the interceptor or
    with another one. What may be written is part of the key, and so are the flags of a scope:
    declared mutable (nothing is ever stored there), or as a flag, this name makes them trace again.

    Returns:
        The name.
    """
    return f"pass {next(_passes)}"
