"""What is known of a probed layer without computing: it travels through jit as structure."""

import dataclasses
from typing import Any

import jax


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LayerInfo:
    """The fields of `LayerICS` that are no numbers."""

    layer: str
    call: int
    output: str
    kind: str
    mode: str
    statistics: str
    n: int
    d: int
    points: str = "samples"
    note: str = ""
    invalid: str = ""

    def row(self) -> dict[str, Any]:
        """Return the fields that a row has; `invalid` is part of its reason."""
        return {name: value for name, value in vars(self).items() if name != "invalid"}
