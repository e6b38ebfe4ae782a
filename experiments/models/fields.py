"""Fields and parameters of the modules of a network."""

import dataclasses
import functools
import inspect
from collections.abc import Iterable
from typing import Any

from experiments.models.preact_resnet import ModuleDef


def with_fields(make: ModuleDef, **fields: Any) -> ModuleDef:
    """Return ``make`` with those of ``fields`` set that the modules it makes have.

    So that networks and jobs need not know which normalization they are given.

    Args:
        make: A module class, a function that makes modules, or a ``functools.partial`` of either.
        **fields: Fields and their values.

    Example:
        >>> import flax.linen as nn
        >>> with_fields(nn.BatchNorm, scale_init=nn.initializers.zeros, unknown=1)().axis
        -1
    """
    target = make
    while isinstance(target, functools.partial):
        target = target.func
    if isinstance(target, type) and dataclasses.is_dataclass(target):
        known = {field.name for field in dataclasses.fields(target)}
    else:
        parameters = inspect.signature(target).parameters
        known = set(parameters)
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            known |= set(fields)
    chosen = {name: value for name, value in fields.items() if name in known}
    return functools.partial(make, **chosen) if chosen else make


def params_at(params: Any, path: Iterable[str]) -> Any:
    """Return the parameters of the module at ``path``; empty if there are none.

    Example:
        >>> params_at({"block": {"norm": {"scale": 1.0}}}, ("block", "norm"))
        {'scale': 1.0}
    """
    for name in path:
        params = params.get(name, {})
    return params
