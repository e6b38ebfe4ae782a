"""The subclasses of a model's classes whose methods enter the interceptor of ``unitize``."""

import functools
import inspect
import types
from typing import Any

import flax.linen as nn

# What the dataclass transform would make anew for a subclass, in place of a user's own.
_KEPT = ("__init__", "__eq__", "__hash__")


def is_unitized(module: Any) -> bool:
    """Return whether a module is of a class that ``unitize`` made."""
    return "_unitized" in vars(type(module))


def class_as_written(module: Any) -> type:
    """Return the class of a module without what ``unitize`` adds."""
    return vars(type(module))["_unitized"][1] if is_unitized(module) else type(module)


def make_subclass(conversion: Any, base: Any, whole: bool) -> type:
    """Return a subclass of a class of modules, of the same name, that enters a conversion.

    Args:
        conversion: the ``Conversion``.
        base: the class.
        whole: whether a pass over such a module must convert a layer.
    """

    def entering(inner: Any, name: str) -> Any:
        @functools.wraps(inner)  # Flax has wrapped it already, and so leaves this as it is
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            with conversion.entered() as this:
                out = inner(self, *args, **kwargs)
            if whole and this is not None and name == "__call__":
                this.check(self, self.variables.get("params", {}), self.path)
            return out

        return method

    def apply(self: Any, variables: Any, *args: Any, **kwargs: Any) -> Any:
        with conversion.entered() as this:
            out = base.apply(self, variables, *args, **kwargs)
        method = kwargs.get("method") or "__call__"
        if whole and this is not None and getattr(method, "__name__", method) == "__call__":
            this.check(self, variables.get("params", {}))
        return out

    def init_with_output(self: Any, *args: Any, **kwargs: Any) -> Any:
        with conversion.entered() as this:
            out, variables = base.init_with_output(self, *args, **kwargs)
        if whole and this is not None:
            this.check(self, variables.get("params", {}))
        return out, variables

    def post_init(self: Any) -> None:
        base.__post_init__(self)
        conversion.mark(self)

    def register(self: Any, name: str, value: Any) -> None:
        conversion.mark(self)
        base._register_submodules(self, name, value)
        conversion.take_attributes(self, self.__dict__.get(name))

    def reduce(self: Any) -> Any:
        return *conversion.reduced(base, whole), self.__dict__

    names = [name for name in dir(base) if _is_method(inspect.getattr_static(base, name))]
    new = {
        **{name: getattr(base, name) for name in _KEPT},
        **{name: entering(inspect.getattr_static(base, name), name) for name in names},
        "apply": nn.nowrap(functools.wraps(base.apply)(apply)),
        "init_with_output": nn.nowrap(functools.wraps(base.init_with_output)(init_with_output)),
        "__post_init__": post_init,
        "_register_submodules": nn.nowrap(register),
        "__reduce__": nn.nowrap(reduce),
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "_unitized": (conversion, base, whole),
    }
    return types.new_class(base.__name__, (base,), exec_body=lambda body: body.update(new))


def _is_method(value: Any) -> bool:
    """Return whether Flax treats a class attribute as a method of a module."""
    return hasattr(value, "method_handler_wrapped") or hasattr(value, "compact_name_scope")
