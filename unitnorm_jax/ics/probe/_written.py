"""Which calls of layers write their running statistics, judged where the calls run."""

import contextlib
from collections.abc import Iterator
from typing import Any

import flax.linen as nn

STATISTICS = ("mean", "var")


class Writes:
    """Told of every call; knows whether one wrote the ``mean`` or ``var`` of its module.

    Outside a lifted transform (remat, scan, map_variables) all variables are new arrays after a
    call, written or not. So those that a call leaves are compared with those it found, within the
    transform.

    Attributes:
        created: Whether a call found no statistics and left some. Flax makes missing variables in
            collections that may be written, so this does not tell whether it wrote them.
    """

    def __init__(self) -> None:
        """No call is open."""
        self.created = False
        self._open: list[_Call] = []

    @contextlib.contextmanager
    def call(self, module: nn.Module) -> Iterator["_Call"]:
        """Around a call of a method; afterwards `_Call.written` is its answer."""
        now = _Call(module)
        outer = next((c for c in reversed(self._open) if c.module.path == module.path), None)
        if outer is not None:
            outer.compare()
        self._open.append(now)
        try:
            yield now
        finally:
            self._open.pop()
        now.compare()
        self.created |= now.created
        if outer is not None:
            # The same module with other variables: `outer` is the outside of a transform.
            outer.lifted |= outer.module.scope is not module.scope
            outer.inside |= now.written
            outer.found = _statistics(outer.module)


class _Call:
    def __init__(self, module: nn.Module) -> None:
        self.module, self.found = module, _statistics(module)
        self.created = self.lifted = self.inside = self._wrote = False

    @property
    def written(self) -> bool:
        return self.inside or (self._wrote and not self.lifted)

    def compare(self) -> None:
        pairs = list(zip(self.found, _statistics(self.module), strict=True))
        self._wrote |= any(old is not new for old, new in pairs)
        self.created |= any(old is None and new is not None for old, new in pairs)


def _statistics(module: nn.Module) -> list[Any]:
    if module.scope is None:
        return [None] * len(STATISTICS)
    return [module.get_variable("batch_stats", name) for name in STATISTICS]
