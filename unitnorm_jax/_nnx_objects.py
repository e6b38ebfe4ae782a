"""What is of ``flax.nnx``, told without loading it: where it is not loaded, nothing is."""

import sys
from typing import Any


def is_nnx(value: Any, kind: str) -> bool:
    """Return whether a value is an instance of a class of ``flax.nnx``.

    Args:
        value: Any.
        kind: The name of the class, such as "Module".
    """
    nnx = sys.modules.get("flax.nnx")  # takes a second to import
    return nnx is not None and isinstance(value, getattr(nnx, kind))
