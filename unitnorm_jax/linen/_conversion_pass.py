"""What a conversion does while a model runs: the interceptor of ``unitize``."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
from flax import errors
from flax.traverse_util import flatten_dict

from unitnorm_jax.linen._batch_norm import BatchNorm
from unitnorm_jax.linen._unitized_batch_norm import UnitizedBatchNorm
from unitnorm_jax.linen._unitized_class import class_as_written

Path = tuple[str, ...]

# Inside of Flax's bookkeeping of a call, which is under way when an interceptor runs.
_OUR_CALL: Any = UnitizedBatchNorm.__call__.__wrapped__  # type: ignore[attr-defined]


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


class Pass:
    """The interceptor: one pass over a model, and what was called in it.

    Args:
        conversion: the ``Conversion``: what becomes of the layers.
    """

    def __init__(self, conversion: Any) -> None:
        self.conversion = conversion
        self.converted = False
        self.called: dict[Path, Called] = {} if conversion.report is None else conversion.report

    def __call__(self, next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        """Convert an ``nn.BatchNorm`` of the model before it is called."""
        module, this = context.module, self.conversion
        if context.method_name != "__call__" or not this.holds(module):
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
        try:
            return nn.module.run_interceptors(_OUR_CALL, module, *args, **kwargs)
        except (errors.ScopeParamNotFoundError, errors.ScopeCollectionNotFound) as error:
            if '"alpha"' not in str(error):
                raise
            raise ValueError(
                f"`params` has no `alpha` at {'/'.join(module.path) or 'its top'}: these variables "
                "are of the model before `unitize`; give `linen.add_alpha(variables)`."
            ) from error

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
            reasons = "; ".join(
                f"{'/'.join(path) or 'itself'}: {why}" for path, why in norms.items()
            )
            found = f"none of its batch normalizations is one ({reasons})"
        else:
            kinds = sorted({one.kind for one in self.called.values()})
            found = f"it called no nn.BatchNorm, but {', '.join(kinds) or 'nothing'}"
        raise ValueError(
            f"`model` (={type(model).__name__}) has no layer to unitize: {found}. Give a model "
            "that calls nn.BatchNorm, and `init` the method that does."
        )


@functools.lru_cache(maxsize=256)
def _converted_class(kind: type) -> type:
    """Return the class of a converted layer; a subclass keeps its other methods."""
    bases = (BatchNorm,) if kind is nn.BatchNorm else (BatchNorm, kind)
    return type(kind.__name__, bases, {"__module__": kind.__module__, "_converted": True})
