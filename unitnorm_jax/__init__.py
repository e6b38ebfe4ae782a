"""Bound, and measure, internal covariate shift in JAX.

Everything is loaded at its first use: ``import unitnorm_jax`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitnorm_jax import contrib as contrib
    from unitnorm_jax import functional as functional
    from unitnorm_jax import ics as ics
    from unitnorm_jax import linen as linen
    from unitnorm_jax import nnx as nnx
    from unitnorm_jax import optim as optim
    from unitnorm_jax._unitize import unitize as unitize
    from unitnorm_jax.ics import ICSProbe as ICSProbe
    from unitnorm_jax.ics import em_distance as em_distance
    from unitnorm_jax.linen import UnitizedBatchNorm as UnitizedBatchNorm

__version__ = "0.1.0"

_PACKAGES = ("contrib", "functional", "ics", "linen", "nnx", "optim")
_NAMES = {
    "ICSProbe": "ics",
    "em_distance": "ics",
    "UnitizedBatchNorm": "linen",
    "unitize": "_unitize",
}
__all__ = [
    "ICSProbe",
    "UnitizedBatchNorm",
    "contrib",
    "em_distance",
    "functional",
    "ics",
    "linen",
    "nnx",
    "optim",
    "unitize",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "__doc__", "__name__", "__file__", "__path__"])
