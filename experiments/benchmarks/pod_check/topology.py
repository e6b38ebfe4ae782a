"""TPU slices to compile for."""

import os
from typing import Any

from jax.experimental import topologies

# Slices of each generation by number of chips, as they can be had. A slice of v5e or v6e has at
# most 256 chips: more of them are several slices, joined by the data-centre network.
_SMALL = {8: ("2x4", 1), 16: ("4x4", 1), 32: ("4x8", 1), 64: ("8x8", 1), 128: ("8x16", 1)}
_FLAT = {**_SMALL, 256: ("16x16", 1), 512: ("16x16", 2), 1024: ("16x16", 4)}
_CUBES = {
    8: ("2x2x2", 1),
    16: ("2x2x4", 1),
    32: ("2x4x4", 1),
    64: ("4x4x4", 1),
    128: ("4x4x8", 1),
    256: ("4x8x8", 1),
    512: ("8x8x8", 1),
    1024: ("8x8x16", 1),
}
SLICES = {"v5e": _FLAT, "v6e": _FLAT, "v5p": _CUBES}


def tpu_devices(topology: str, slices: int = 1) -> list[Any]:
    """Return the devices of a TPU slice to compile for.

    Needs the TPU compiler (``libtpu``), but no TPU.

    Args:
        topology: Generation and shape of a slice, for example "v5e:16x16".
        slices: Number of such slices, joined by the data-centre network.

    Raises:
        ValueError: If there is no TPU compiler, or it knows no such slice.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU to ask for its metadata
    # Nor one that two processes must not use at once.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options = {"num_slices": slices} if slices > 1 else {}
    try:
        description = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        )
    except Exception as error:
        raise ValueError(
            f"no TPU compiler for topology (={topology!r}): install it with "
            "`pip install 'jax[tpu]'`, set JAX_PLATFORMS=cpu, and name a slice such as v5e:16x16 "
            f"({error})."
        ) from error
    return list(description.devices)


def slice_of(generation: str, chips: int) -> tuple[str, int]:
    """Return topology and number of slices of ``chips`` chips of a TPU generation.

    Raises:
        ValueError: If it is not one of ``SLICES``.

    Example:
        >>> slice_of("v5e", 1024)
        ('v5e:16x16', 4)
    """
    if generation not in SLICES:
        raise ValueError(
            f"generation (={generation!r}) is unknown; choose from {', '.join(SLICES)}."
        )
    sizes = SLICES[generation]
    if chips not in sizes:
        raise ValueError(
            f"`scaling` (={chips}) must be a number of chips of {generation}: choose from "
            f"{', '.join(map(str, sizes))}."
        )
    shape, slices = sizes[chips]
    return f"{generation}:{shape}", slices
