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


def new_pass() -> str:
    """Return a collection to declare mutable, for which nothing is ever stored.

    Modules under ``nn.jit`` keep the programs that they were traced to, without the interceptor or
    with another one. What may be written is part of the key, so this name makes them trace again.

    Returns:
        A name that no earlier pass had.
    """
    return f"pass {next(_passes)}"
