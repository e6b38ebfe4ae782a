"""Published code, run in float64: see `repack.py` for the format."""

import functools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """One configuration of a layer with its inputs and outputs, all float64."""

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]


def layer_cases() -> dict[str, Case]:
    """Every case of the authors' unitized layer by name."""
    return load_cases("layer")


@functools.cache
def load_cases(name: str) -> dict[str, Case]:
    """Every case of a packed file, such as "layer" or "kalman", by name."""
    with np.load(Path(__file__).parent / f"{name}.npz") as packed:
        index = json.loads(packed["index"].item())
        flat = {k: np.ascontiguousarray(packed[k].T).view(k).ravel() for k in ("f4", "f8")}
    start = {"f4": 0, "f8": 0}
    cases = {}
    for name, config in index.items():
        arrays = {}
        for key, (kind, *shape) in config.pop("arrays").items():
            stop = start[kind] + math.prod(shape)
            arrays[key] = flat[kind][start[kind] : stop].reshape(shape).astype(np.float64)
            start[kind] = stop
        cases[name] = Case(config, arrays)
    return cases
