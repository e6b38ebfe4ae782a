"""Trees of arrays and other things: what is traced, and what is part of the program."""

import dataclasses
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Rest:
    """A tree without its arrays."""

    tree: Any
    leaves: tuple[Any, ...]
    """In order; None where an array was."""
    places: tuple[int, ...]
    """Of the arrays among the leaves."""

    def joined(self, arrays: Any) -> Any:
        """Return the tree with these arrays."""
        leaves = list(self.leaves)
        for place, array in zip(self.places, arrays, strict=True):
            leaves[place] = array
        return jax.tree.unflatten(self.tree, leaves)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Split:
    """A tree whose arrays a compiled function takes, and whose rest is part of the program."""

    arrays: tuple[Any, ...]
    rest: Rest = dataclasses.field(metadata={"static": True})

    def joined(self) -> Any:
        """Return the tree."""
        return self.rest.joined(self.arrays)


def split(tree: Any) -> tuple[tuple[Any, ...], Rest]:
    """Return the arrays of a tree, and the tree without them.

    Arrays are those of JAX and numpy that hold numbers, booleans or random keys. Strings, Python's
    numbers and flags, and functions are the rest, which a model sees as they are.

    Args:
        tree: Any pytree.

    Example:
        >>> import numpy as np
        >>> arrays, rest = split({"x": np.ones(2), "train": True})
        >>> len(arrays), rest.joined(["y"])
        (1, {'train': True, 'x': 'y'})
    """
    leaves, structure = jax.tree.flatten(tree)
    places = tuple(i for i, leaf in enumerate(leaves) if is_array(leaf))
    rest = tuple(None if is_array(leaf) else leaf for leaf in leaves)
    return tuple(leaves[i] for i in places), Rest(structure, rest, places)


def is_array(leaf: Any) -> bool:
    """Return whether JAX can trace it as an array; Python's numbers are constants."""
    if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return False
    kinds = np.number, np.bool_, jax.dtypes.extended
    return any(jax.dtypes.issubdtype(leaf.dtype, kind) for kind in kinds)
