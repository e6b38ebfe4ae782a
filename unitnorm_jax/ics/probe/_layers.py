"""Which layers of a Flax model to look at."""

import fnmatch
from collections.abc import Callable
from typing import Any

import flax.linen as nn

Predicate = Callable[[nn.Module, str], bool]

NORMALIZATIONS = (nn.BatchNorm, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm)


def is_normalization(module: nn.Module, method_name: str = "__call__") -> bool:
    """Return whether a module normalizes, judged by its class or by the statistics it keeps.

    True for the call of Flax's BatchNorm, LayerNorm, RMSNorm, GroupNorm and InstanceNorm, of
    their subclasses, and of any module that keeps a ``mean`` and a ``var`` in ``batch_stats``,
    as ``UnitizedBatchNorm`` does. WeightNorm and SpectralNorm normalize weights, not outputs:
    False.

    Args:
        module: Bound, that is, inside ``apply``.
        method_name: Of the method that was called.

    Returns:
        Whether it does.

    Example:
        >>> import flax.linen as nn
        >>> is_normalization(nn.LayerNorm()), is_normalization(nn.Dense(3))
        (True, False)
    """
    if method_name != "__call__":
        return False
    return isinstance(module, NORMALIZATIONS) or keeps_statistics(module)


def keeps_statistics(module: nn.Module) -> bool:
    """Return whether a module keeps a running ``mean`` and ``var`` in ``batch_stats``."""
    if module.scope is None:
        return False
    return all(module.has_variable("batch_stats", name) for name in ("mean", "var"))


def layer_filter(layers: Any) -> Predicate:
    """Turn what a user gives for `layers` into a predicate of module and method name.

    Args:
        layers: None: every normalization (`is_normalization`). A module class: calls of its
            instances. A string: calls of the modules whose path, joined with "/", matches it as a
            shell pattern, where ``*`` also matches "/" ("block_*/norm_0"; "" is the model itself).
            A predicate ``(module, method_name) -> bool``, as Flax's ``capture_intermediates``
            takes; it sees every method, not only ``__call__``. A tuple or list of these: any of
            them.

    Returns:
        The predicate.

    Raises:
        ValueError: If it is none of these.

    Example:
        >>> import flax.linen as nn
        >>> layer_filter(nn.Dense)(nn.Dense(3), "__call__")
        True
    """
    if layers is None:
        return is_normalization
    if isinstance(layers, type) and issubclass(layers, nn.Module):
        return lambda module, name: name == "__call__" and isinstance(module, layers)
    if isinstance(layers, str):
        return lambda module, name: (
            name == "__call__" and fnmatch.fnmatchcase("/".join(module.path), layers)
        )
    if isinstance(layers, tuple | list) and layers:
        parts = [layer_filter(part) for part in layers]
        return lambda module, name: any(part(module, name) for part in parts)
    if callable(layers) and not isinstance(layers, type | nn.Module):
        return layers
    raise ValueError(
        f"`layers` (={layers!r}) must be a module class, a pattern of paths, a predicate "
        "(module, method name) -> bool, or a nonempty tuple of these; None selects every "
        "normalization layer."
    )
