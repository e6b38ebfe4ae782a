"""What is known of a probed layer without computing: it travels through jit as structure."""

import dataclasses

import jax


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class LayerInfo:
    """The first fields of `LayerICS`."""

    layer: str
    call: int
    output: str
    kind: str
    mode: str
    statistics: str
    n: int
    d: int
