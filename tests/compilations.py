"""What XLA compiles, counted: eager code that compiles on every call is slow and leaks memory."""

import contextlib
from collections.abc import Iterator
from typing import Any

from jax import monitoring

_EVENT = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def count_compilations() -> Iterator[list[str]]:
    """Yield a list that gets the name of every function compiled in this context.

    A program that comes from the persistent cache counts as well.

    Example::

        f(x)  # compiles
        with count_compilations() as compiled:
            f(x)
        assert not compiled
    """
    compiled: list[str] = []

    def listen(event: str, duration: float, **metadata: Any) -> None:
        del duration
        if event == _EVENT:
            compiled.append(str(metadata.get("fun_name")))

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        monitoring.unregister_event_duration_listener(listen)
