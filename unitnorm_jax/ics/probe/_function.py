"""Any function of a state and a batch as the model of a probe."""

import fnmatch
from collections.abc import Mapping
from typing import Any

import jax

from unitnorm_jax.ics.probe._capture import LayerOutput
from unitnorm_jax.ics.probe._devices import Packed
from unitnorm_jax.ics.probe._split import Split, is_array, split
from unitnorm_jax.ics.probe._variables import check_alive


class Function:
    """The arrays that a function returns by name; see `ICSProbe.of`."""

    def __init__(self, f: Any, layers: Any) -> None:
        """Check the arguments.

        Raises:
            ValueError: If `f` is no function, or `layers` no patterns.
        """
        if not callable(f):
            raise ValueError(
                f"`f` (={type(f).__name__}) must be a function of a state and the batch that "
                "returns arrays by name."
            )
        patterns = (layers,) if isinstance(layers, str) else layers
        if patterns is not None and not (
            isinstance(patterns, tuple | list) and all(isinstance(p, str) for p in patterns)
        ):
            raise ValueError(
                f"`layers` (={layers!r}) must be a pattern of the names that `f` returns, or a "
                "tuple of patterns; None takes all."
            )
        self._f, self._patterns = f, patterns

    def prepare(self, name: str, state: Any) -> Any:
        """Return the state with its arrays apart from the rest, which is part of the program.

        Raises:
            ValueError: If arrays were donated, or the rest cannot be hashed.
        """
        if isinstance(state, Packed | Split):
            return state
        check_alive(name, state)
        arrays, rest = split(state)
        try:
            hash(rest)
        except TypeError as error:
            raise ValueError(
                f"`{name}` (={type(state).__name__}) holds something that is neither an array nor "
                f"can be hashed ({error}); give its arrays alone, and close `f` over the rest."
            ) from error
        return Split(arrays, rest)

    def check_apart(self, before: Any, after: Any) -> None:
        """Nothing to do: one state twice has not shifted."""

    def outputs(self, state: Split, args: tuple[Any, ...], rngs: Any) -> list[LayerOutput]:
        """Return what the function returns, one entry per array.

        Raises:
            ValueError: If it returns no arrays by name, or none that is wanted.
        """
        del rngs  # they are in the state or the batch
        found = self._f(state.joined(), *args)
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise ValueError(
                "`f` must return a dictionary of arrays by name, but returned "
                f"{'an array' if is_array(found) else type(found).__name__}; return for example "
                "{'norm': y}."
            )
        names = [name for name in found if self._wants(name)]
        if not names:
            raise ValueError(
                f"`layers` (={self._patterns}) selects no output of `f`, which returned "
                f"{', '.join(map(repr, found)) or 'none'}; select among these."
            )
        return [
            LayerOutput(name, 0, jax.tree_util.keystr(where), "", "none", leaf)
            for name in names
            for where, leaf in jax.tree_util.tree_leaves_with_path(found[name])
        ]

    def _wants(self, name: str) -> bool:
        if self._patterns is None:
            return True
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns)
