"""Small models in the shape of other people's code: what `unitize` and the probe must cope with.

None was written for this library. Each file has one, as `USER_MODEL`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np


class UserModel(NamedTuple):
    """A model, and how its owner calls it."""

    model: nn.Module
    batches: tuple[tuple[Any, ...], ...]
    """The positional arguments of each call within one training step."""
    train: dict[str, Any]
    """Keyword arguments while training."""
    eval: dict[str, Any]
    converted: int
    """How many layers are plain `nn.BatchNorm`."""
    left_alone: int = 0
    """How many look like one, but compute otherwise."""
    probe: Mapping[str, Any] = MappingProxyType({})
    """What `ICSProbe` must be told besides."""


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal numbers; by numpy, so that to import a model computes nothing in JAX."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
