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
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.core import freeze

from unitnorm_jax._interception import intercepted_first, interceptors, new_pass
from unitnorm_jax.linen._conversion_pass import Called, Pass, Path
from unitnorm_jax.linen._unitized_batch_norm import UnitizedBatchNorm
from unitnorm_jax.linen._unitized_class import class_as_written, is_unitized, make_subclass

_FLAG = "unitize"
_THEIR_CALL = nn.BatchNorm.__call__


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
            made = self._classes.setdefault((base, whole), make_subclass(self, base, whole))
        return made

    @contextlib.contextmanager
    def entered(self) -> Iterator[Pass | None]:
        """Intercept; give the pass, or None within one of the same conversion."""
        active = next((one for one in interceptors() if isinstance(one, Pass)), None)
        if active is not None and active.conversion is self:
            yield None
            return
        this = Pass(self)
        with intercepted_first(this):
            yield this
        if active is not None:
            for path, one in this.called.items():
                why = one.why or "a `unitize` within the model has made it"
                active.called.setdefault(path, one._replace(why=why))

    def mark(self, module: Any) -> None:
        """Let a bound module's scope, and all that follow from it, say what it belongs to."""
        scope = module.scope
        if scope is not None and scope.flags.get(_FLAG) != self.flag:
            scope.flags = freeze({**scope.flags, _FLAG: self.flag})

    def holds(self, module: Any) -> bool:
        """Return whether a module is bound within a model of this conversion."""
        return module.scope is not None and module.scope.flags.get(_FLAG) == self.flag

    def take(self, module: Any, whole: bool) -> None:
        """Convert a module in place, and those that it holds as attributes."""
        object.__setattr__(module, "__class__", self.subclass(class_as_written(module), whole))
        self.mark(module)
        for field in dataclasses.fields(module):
            self.take_attributes(module, module.__dict__.get(field.name))

    def take_attributes(self, parent: Any, value: Any) -> None:
        """Convert the modules in an attribute: they may be called from outside of any method."""
        for child in jax.tree.leaves(value):
            if isinstance(child, nn.Module) and child.parent is parent and self._may_take(child):
                self.take(child, whole=False)

    def _may_take(self, module: Any) -> bool:
        """Return whether a module is as written, or has come here as a part of another model."""
        if not is_unitized(module):
            return True
        conversion, _, whole = vars(type(module))["_unitized"]
        return conversion is not self and not whole

    def reduced(self, base: type, whole: bool) -> tuple[Any, tuple[Any, ...]]:
        """Return how ``copy`` and ``pickle`` make an empty module of the subclass."""
        return _remade, (base, self.fields, self.select, whole)

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


def _remade(base: type, fields: Mapping[str, Any], select: Any, whole: bool) -> Any:
    made: Any = conversion_of(fields, select).subclass(base, whole)
    return object.__new__(made)
