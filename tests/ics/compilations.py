"""Count what XLA compiles."""

import contextlib
from collections.abc import Iterator

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
_counts: list[list[str]] = []


def _listen(event: str, duration: float, **_: object) -> None:
    del duration
    if event == _EVENT:
        for count in _counts:
            count.append(event)


jax.monitoring.register_event_duration_secs_listener(_listen)  # for good: JAX has no way back


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """A list that has one entry more for each program compiled in the context."""
    count: list[str] = []
    _counts.append(count)
    try:
        yield count
    finally:
        _counts.remove(count)
