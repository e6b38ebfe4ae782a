"""One line for any model: its ``nn.BatchNorm`` layers become unitized."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict

from unitnorm_jax._nnx_objects import is_nnx
from unitnorm_jax.functional._numerics.arguments import check_options
from unitnorm_jax.linen._conversion import Conversion, conversion_of
from unitnorm_jax.linen._conversion_pass import Called
from unitnorm_jax.linen._unitized_batch_norm import UnitizedBatchNorm
from unitnorm_jax.linen._unitized_class import class_as_written, is_unitized

_THEIRS = {field.name for field in dataclasses.fields(nn.BatchNorm)}
_DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(UnitizedBatchNorm)
    if field.name not in _THEIRS
}


def unitize(model: Any, *, select: Callable[[Any], Any] | None = None, **options: Any) -> Any:
    """Return a model whose ``nn.BatchNorm`` layers are unitized.

    Every ``nn.BatchNorm`` that the model calls computes as ``UnitizedBatchNorm``, however deep and
    however hard-coded it is. ``params`` gains an ``alpha`` beside its ``scale`` and ``bias``; all
    other paths, fields and random keys stay, so ``add_alpha`` loads a checkpoint of the model as
    written, and at alpha 0 it computes the same.

    The result is a module like the given one, of a subclass of its class: ``init``, ``apply``,
    ``bind``, ``tabulate``, named methods, lifted transforms, ``jax.export``, pickling and use
    within other modules work as before. Two results with equal options are equal, and a jitted
    function that takes one as a static argument is not compiled again for the other, if ``select``
    and ``alpha_init`` are functions that have a name in a module: a lambda, or a closure such as
    ``nn.initializers.constant(0.5)``, is another one each time, so keep the model, or the closure.

    Left alone: subclasses of ``nn.BatchNorm`` with a ``__call__`` of their own, what ``select``
    leaves out, layers that are a ``UnitizedBatchNorm`` already, and models which the given one does
    not hold but applies (a teacher). ``unitized_layers`` tells which and why.

    Compiled programs are those of ``linen.BatchNorm`` written in by hand. Each call of a module
    passes one more interceptor while it is traced.

    Args:
        model: a ``flax.linen`` module, not bound. Within a method of another module, one that
            has just been made there.
        select: which layers, a predicate of the bound ``nn.BatchNorm``: of its ``path``, a tuple
            of names, and of its fields. It may be asked more than once about a layer; of equal
            blocks under ``nn.jit`` about the first one, whose program the others use. None: all.
        **options: the fields that ``nn.BatchNorm`` has not: ``unit``, ``alpha_init``,
            ``bessel_correction``, ``sample_axis``; see ``UnitizedBatchNorm``.

    Returns:
        The model; the given one is unchanged.

    Raises:
        ValueError: the model is none of ``flax.linen``, bound or unitized already; an option is
            unknown or out of its range. By ``init`` or ``apply`` of the result: the model called
            no ``nn.BatchNorm``, or its variables have no alpha.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.linen import unitize
        >>> class Net(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x, train=True):
        ...         x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        ...         return nn.Dense(2)(nn.relu(x))
        >>> model = unitize(Net(), unit="rms")
        >>> variables = model.init(jax.random.key(0), jnp.ones((8, 3)))
        >>> sorted(variables["params"]["BatchNorm_0"])
        ['alpha', 'bias', 'scale']
    """
    fields = _checked(options)
    if select is not None and not callable(select):
        raise ValueError(
            f"`select` (={select!r}) must be a function of a bound nn.BatchNorm, such as "
            "`lambda bn: 'head' not in bn.path`; None selects all."
        )
    if inspect.isfunction(select):
        try:
            inspect.signature(select).bind(None)
        except TypeError as error:
            raise ValueError(
                f"`select` (={select}) must take one argument, the bound nn.BatchNorm, whose path "
                f"is `bn.path`; filters of path and layer are those of nnx ({error})."
            ) from None
    _check_model(model)
    conversion = conversion_of(fields, select)
    if model.scope is not None:
        _check_new(model)
        conversion.take(model, whole=True)
        return model
    made = conversion.subclass(type(model), whole=True)
    return made(**_values(model))


class UnitizedLayer(NamedTuple):
    """What ``unitize`` does with a layer.

    Attributes:
        path: its path in the variables, such as "block_0/norm".
        converted: whether it computes as ``UnitizedBatchNorm``.
        reason: why not; empty if it does.
    """

    path: str
    converted: bool
    reason: str


def unitized_layers(model: Any, *args: Any, **kwargs: Any) -> list[UnitizedLayer]:
    """Return what ``unitize`` has done with each layer that keeps batch statistics.

    Args:
        model: what ``unitize`` returned.
        *args: arguments of the model, as for ``model.init`` after its keys. Arrays may be
            ``jax.ShapeDtypeStruct``: nothing is computed.
        **kwargs: keyword arguments of ``model.init``.

    Returns:
        The layers, in the order of their first calls.

    Raises:
        ValueError: the model is not unitized.

    Example:
        >>> import flax.linen as nn, jax.numpy as jnp
        >>> from unitnorm_jax.linen import unitize, unitized_layers
        >>> model = unitize(nn.BatchNorm(use_running_average=True, name="norm"))
        >>> unitized_layers(model, jnp.ones((2, 3)))
        [UnitizedLayer(path='', converted=True, reason='')]
    """
    if not isinstance(model, nn.Module) or not is_unitized(model):
        raise ValueError(
            f"`model` (={type(model).__name__}) is not unitized: give unitize(model, ...)."
        )
    written: Conversion = vars(type(model))["_unitized"][0]
    called: dict[tuple[str, ...], Called] = {}
    # Another conversion, so that no program which nn.jit keeps hides a layer.
    conversion = Conversion(written.fields, written.select, called)
    made = conversion.subclass(class_as_written(model), whole=True)
    copy = made(**{**_values(model), "parent": None})
    leaves, tree = jax.tree.flatten((args, kwargs))
    is_array = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]

    def init(key: Any, arrays: Sequence[Any]) -> Any:
        given = iter(arrays)
        filled = [
            next(given) if is_one else leaf for leaf, is_one in zip(leaves, is_array, strict=True)
        ]
        args, kwargs = jax.tree.unflatten(tree, filled)
        return copy.init(key, *args, **kwargs)

    arrays = [leaf for leaf, is_one in zip(leaves, is_array, strict=True) if is_one]
    variables = jax.eval_shape(init, jax.random.key(0), arrays)
    keep = dict.fromkeys(path[:-1] for path in flatten_dict(variables.get("batch_stats", {})))
    layers = [
        UnitizedLayer("/".join(path), one.why is None, f"{one.kind}: {one.why}" if one.why else "")
        for path, one in called.items()
        if one.is_batch_norm or path in keep
    ]
    # nn.jit traces the first of several equal blocks, and the others are what that is.
    params = flatten_dict(variables.get("params", {}))
    for path in (path for path in keep if path not in called):
        done = (*path, "alpha") in params
        reason = "" if done else "nn.jit: the layer is in a block equal to an earlier one"
        layers.append(UnitizedLayer("/".join(path), done, reason))
    return layers


def _values(model: Any) -> dict[str, Any]:
    """Return the fields of a module, as its class takes them."""
    return {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.init}


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Return all options, those that are not given by their defaults."""
    for name in options:
        if name not in _DEFAULTS:
            raise ValueError(
                f"`{name}` (={options[name]!r}) is no option of `unitize`; there are "
                f"{', '.join(_DEFAULTS)}. Fields of nn.BatchNorm stay as the model sets them."
            )
    fields = {**_DEFAULTS, **options}
    return {**fields, **check_options(**fields)}


def _check_model(model: Any) -> None:
    """Raise unless the model is a module of ``flax.linen`` that is not unitized."""
    if isinstance(model, nn.Module):
        name = type(model).__name__
        if is_unitized(model):
            raise ValueError(
                f"`model` (={name}) is unitized already; give the model as it was before, with "
                "all options at once."
            )
        if isinstance(model, UnitizedBatchNorm):
            raise ValueError(f"`model` (={name}) is a UnitizedBatchNorm: it needs no `unitize`.")
        return
    if is_nnx(model, "Module"):
        raise ValueError(
            f"`model` (={type(model).__name__}) is a module of flax.nnx; use "
            "unitnorm_jax.nnx.unitize."
        )
    if isinstance(model, type):
        raise ValueError(
            f"`model` (={model.__name__}) is a class; give a module, such as "
            f"unitize({model.__name__}(...))."
        )
    raise ValueError(f"`model` (={model!r}) must be a module of flax.linen, such as ResNet50(...).")


def _check_new(model: Any) -> None:
    """Raise unless a bound module was made by the method of another module that is running."""
    if model.parent is None or model.parent is not nn.module._context.module_stack[-1]:
        raise ValueError(
            f"`model` (={type(model).__name__}) is bound to variables: unitize first, then bind "
            "(`model, variables = model.unbind()` gives both)."
        )
