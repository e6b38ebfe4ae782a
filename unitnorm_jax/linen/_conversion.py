"""How ``unitize`` works: subclasses of the model's classes, and the interceptor they enter.

A conversion is a choice of options and ``select``. For each class of a model it makes one subclass,
of the same name, whose methods intercept calls while they run. The interceptor turns a called
``nn.BatchNorm`` into a ``linen.BatchNorm``: the same object, scope, name and fields, with another
class. So what is around the layer, lifted transforms among it, is that of the model as written.

Two things follow the scope, where Flax hands them on to every submodule and into every transform:
whether a layer belongs to the model (an unrelated model that is applied within does not), and that
programs which ``nn.jit`` has kept are those of this conversion. Both are one flag, ``unitize``.
"""

import contextlib
import dataclasses
import functools
import inspect
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax.core import freeze
from flax.traverse_util import flatten_dict

from unitnorm_jax._interception import intercepted_first, interceptors, new_pass
from unitnorm_jax.linen._batch_norm import BatchNorm
from unitnorm_jax.linen._unitized_batch_norm import UnitizedBatchNorm

Path = tuple[str, ...]

_FLAG = "unitize"
_THEIR_CALL = nn.BatchNorm.__call__
# Inside of Flax's bookkeeping of a call, which is under way when an interceptor runs.
_OUR_CALL: Any = UnitizedBatchNorm.__call__.__wrapped__  # type: ignore[attr-defined]
# What the dataclass transform would make anew for a subclass, in place of a user's own.
_KEPT = ("__init__", "__eq__", "__hash__")


class Called(NamedTuple):
    """A module that was called.

    Attributes:
        kind: the name of its class.
        is_batch_norm: whether it is Flax's or ours, or of a subclass.
        why: why it is not converted; None: it is.
    """

    kind: str
    is_batch_norm: bool
    why: str | None


class Conversion:
    """What becomes of the layers of a model.

    Args:
        fields: the fields that ``nn.BatchNorm`` has not, with their values.
        select: which ``nn.BatchNorm``, a predicate of the bound module; None: all.
        report: where to note each module that is called, by its path. Then nothing is raised if
            no layer is converted.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        select: Callable[[Any], Any] | None,
        report: dict[Path, Called] | None = None,
    ) -> None:
        self.fields = fields
        self.select = select
        self.report = report
        self.flag = new_pass()
        self._classes: Any = weakref.WeakValueDictionary()

    def subclass(self, base: type, whole: bool) -> type:
        """Return the subclass of a class of modules that enters the interceptor.

        Args:
            base: the class.
            whole: for the model itself, which must have a layer to convert; not for a part of it.
        """
        made = self._classes.get((base, whole))
        if made is None:
            made = self._classes.setdefault((base, whole), _make_subclass(self, base, whole))
        return made

    @contextlib.contextmanager
    def entered(self) -> Iterator["Pass | None"]:
        """Intercept; give the pass, or None within one of the same conversion."""
        active = next((one for one in interceptors() if isinstance(one, Pass)), None)
        if active is not None and active.conversion is self:
            yield None
            return
        this = Pass(self)
        with intercepted_first(this):
            yield this

    def mark(self, module: Any) -> None:
        """Let a bound module's scope, and all that follow from it, say what it belongs to."""
        scope = module.scope
        if scope is not None and scope.flags.get(_FLAG) != self.flag:
            scope.flags = freeze({**scope.flags, _FLAG: self.flag})

    def take(self, module: Any, whole: bool) -> None:
        """Convert a module in place, and those that it holds as attributes."""
        object.__setattr__(module, "__class__", self.subclass(type(module), whole))
        self.mark(module)
        for field in dataclasses.fields(module):
            self.take_attributes(module, module.__dict__.get(field.name))

    def take_attributes(self, parent: Any, value: Any) -> None:
        """Convert the modules in an attribute: they may be called from outside of any method."""
        for child in jax.tree.leaves(value):
            if isinstance(child, nn.Module) and child.parent is parent and not is_unitized(child):
                self.take(child, whole=False)

    def why_not(self, module: Any) -> str | None:
        """Return why a module is not converted; None: it is."""
        if isinstance(module, UnitizedBatchNorm):
            return "it is a UnitizedBatchNorm already"
        kind = class_as_written(module)
        if not issubclass(kind, nn.BatchNorm):
            return "it is no nn.BatchNorm"
        if kind.__call__ is not _THEIR_CALL:
            return "it has a `__call__` of its own"
        if self.select is not None and not self.select(module):
            return "`select` leaves it out"
        return None


class Pass:
    """The interceptor: one pass over a model, and what was called in it.

    Args:
        conversion: What becomes of the layers.
    """

    def __init__(self, conversion: Conversion) -> None:
        self.conversion = conversion
        self.converted = False
        self.called: dict[Path, Called] = {} if conversion.report is None else conversion.report

    def __call__(self, next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        """Convert an ``nn.BatchNorm`` of the model before it is called."""
        module, this = context.module, self.conversion
        if (
            context.method_name != "__call__"
            or module.scope is None
            or module.scope.flags.get(_FLAG) != this.flag
        ):
            return next_fun(*args, **kwargs)
        if "_converted" in vars(type(module)):  # by an earlier call, or on the way in
            self.converted = True
            return next_fun(*args, **kwargs)
        why = this.why_not(module)
        is_batch_norm = isinstance(module, nn.BatchNorm | UnitizedBatchNorm)
        self.called.setdefault(module.path, Called(type(module).__name__, is_batch_norm, why))
        if why is not None:
            return next_fun(*args, **kwargs)
        object.__setattr__(module, "__class__", _converted_class(class_as_written(module)))
        for name, value in this.fields.items():
            object.__setattr__(module, name, value)
        _check_alpha(module)
        return nn.module.run_interceptors(_OUR_CALL, module, *args, **kwargs)

    def check(self, model: Any, params: Any, above: Path = ()) -> None:
        """Raise if the pass has converted nothing.

        Args:
            model: the model.
            params: its parameters. An alpha in them is of a layer that ``nn.jit`` calls in a
                program which it keeps, unseen; or of one that stays.
            above: the path of the model.
        """
        if self.converted or self.conversion.report is not None:
            return
        paths = [(*above, *path) for path in flatten_dict(params)]
        norms = {path: one.why for path, one in self.called.items() if one.is_batch_norm}
        if any(path[-1] == "alpha" and path[:-1] not in norms for path in paths):
            return
        if norms:
            reasons = "; ".join(f"{'/'.join(path) or 'itself'}: {why}" for path, why in norms.items())
            found = f"none of its batch normalizations is one ({reasons})"
        else:
            kinds = sorted({one.kind for one in self.called.values()})
            found = f"it called no nn.BatchNorm, but {', '.join(kinds) or 'nothing'}"
        raise ValueError(
            f"`model` (={type(model).__name__}) has no layer to unitize: {found}. Give a model "
            "that calls nn.BatchNorm, and `init` the method that does."
        )


def _check_alpha(module: Any) -> None:
    """Raise if a layer has everything but its alpha: a checkpoint of ``nn.BatchNorm``."""
    if module.is_mutable_collection("params") or module.has_variable("params", "alpha"):
        return
    if module.has_variable("batch_stats", "mean"):
        raise ValueError(
            f"`params` has no `alpha` at {'/'.join(module.path) or 'its top'}: these variables are "
            "of the model before `unitize`. Give `unitnorm_jax.linen.add_alpha(variables)`."
        )


def is_unitized(module: Any) -> bool:
    """Return whether a module is of a class that ``Conversion.subclass`` made."""
    return "_unitized" in vars(type(module))


def class_as_written(module: Any) -> type:
    """Return the class of a module without what ``Conversion.subclass`` adds."""
    return vars(type(module))["_unitized"][1] if is_unitized(module) else type(module)


@functools.lru_cache(maxsize=256)
def _converted_class(kind: type) -> type:
    """Return the class of a converted layer; a subclass keeps its other methods."""
    bases = (BatchNorm,) if kind is nn.BatchNorm else (BatchNorm, kind)
    return type(kind.__name__, bases, {"__module__": kind.__module__, "_converted": True})


def _make_subclass(conversion: Conversion, base: Any, whole: bool) -> type:
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
        return remade, (base, conversion.fields, conversion.select, whole), self.__dict__

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
        "_unitized": (conversion, base),
    }
    return types.new_class(base.__name__, (base,), exec_body=lambda body: body.update(new))


def _is_method(value: Any) -> bool:
    """Return whether Flax treats a class attribute as a method of a module."""
    return hasattr(value, "method_handler_wrapped") or hasattr(value, "compact_name_scope")


_conversions: Any = weakref.WeakValueDictionary()


def conversion_of(fields: Mapping[str, Any], select: Callable[[Any], Any] | None) -> Conversion:
    """Return the conversion of these options: the same one for as long as anything uses it."""
    key = (tuple(fields.items()), select)
    try:
        hash(key)
    except TypeError as error:
        raise ValueError(
            f"`select` (={select!r}) and `alpha_init` must have a hash, as functions do ({error}): "
            "models with equal ones are equal."
        ) from None
    found = _conversions.get(key)
    if found is None:
        found = _conversions.setdefault(key, Conversion(fields, select))
    return found


def remade(base: type, fields: Mapping[str, Any], select: Any, whole: bool) -> Any:
    """Return an empty module of the subclass, for ``copy`` and ``pickle`` to fill."""
    made = conversion_of(fields, select).subclass(base, whole)
    return made.__new__(made)
