"""Every batch normalization of an ``nnx`` model becomes a unitized one."""

import functools
import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from flax.typing import Initializer

from unitnorm_jax.functional._numerics.arguments import check_options
from unitnorm_jax.nnx._unitized_batch_norm import (
    _NO_METADATA,
    UnitizedBatchNorm,
    _zeros,
    initial_alpha,
    set_own,
)

Path = tuple[Any, ...]
OWN = ("alpha", "unit", "sample_axis", "bessel_correction")


def unitize(
    model: Any,
    *,
    select: Any = None,
    unit: str | float = "reference",
    alpha_init: Initializer = _zeros,
    sample_axis: int | Sequence[int] | None = 0,
    bessel_correction: bool = False,
    alpha_metadata: Mapping[str, Any] = _NO_METADATA,
    rngs: Any = None,
) -> Any:
    """Turn every ``nnx.BatchNorm`` of a model into a ``UnitizedBatchNorm``, in place.

    Parameters, statistics, options and paths stay; ``alpha`` comes beside ``scale``. It has the
    shape, the dtype, the metadata and the sharding of scale (else of bias, else of mean), so layers
    that were built under ``nnx.vmap`` or ``nnx.scan``, whose Variables are stacked, have one alpha
    each. A layer that stands in several places is converted once.

    Subclasses of ``nnx.BatchNorm`` are converted if they call as it does, and stay subclasses of
    their own; one with another ``__call__`` is left alone. So is what ``nnx.bridge.ToNNX`` wraps:
    convert the linen module before. Convert before ``nnx.Optimizer`` is made: its state has the
    paths of the parameters.

    Args:
        model: an ``nnx.Module``, or a list or dictionary of such. It may be abstract, from
            ``nnx.eval_shape``: to restore a checkpoint into, say.
        select: which layers to convert, by default all: a function ``(path, layer) -> bool``, or
            another filter of nnx such as ``nnx.PathContains("stem")``. Other layers may follow in a
            second call, with other options.
        unit: "reference" (the authors'), "sample", "rms", "position", or a float kappa.
        alpha_init: initializer of alpha, by default zeros: the model computes what it did before.
        sample_axis: the sample axis of the layers' inputs, or several; None: each call has one
            sample, under ``vmap(axis_name=...)``.
        bessel_correction: apply the authors' correction of the variance.
        alpha_metadata: metadata of alpha, beside those that it takes over.
        rngs: random keys, of the stream "params", for an ``alpha_init`` that draws; each layer
            takes one.

    Returns:
        The same model.

    Raises:
        ValueError: no layer is a batch normalization, or ``select`` takes none; all are unitized
            already; the model is a linen module, or holds one that has a batch normalization.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from unitnorm_jax.nnx import unitize
        >>> rngs = nnx.Rngs(0)
        >>> model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs))
        >>> model = unitize(model, unit="rms")
        >>> type(model.layers[1]).__name__, model.layers[1].alpha.shape
        ('UnitizedBatchNorm', (4,))
    """
    options = check_options(
        unit=unit,
        sample_axis=sample_axis,
        alpha_init=alpha_init,
        bessel_correction=bessel_correction,
    )
    del options["alpha_init"]
    layers = _select(_batch_norms(model, select), select)
    made = []
    for path, layer in layers:
        own = [name for name in OWN if hasattr(layer, name)]
        if own:
            raise ValueError(
                f"The layer {_shown(path)} ({type(layer).__name__}) has the attribute {own[0]!r} "
                "already, which a unitized layer needs for itself; rename it, or leave the layer "
                "out with `select`."
            )
        made.append(_alpha(layer, alpha_init, rngs, alpha_metadata))
        if rngs is not None:
            rngs.params()  # the next layer's key is another
    for (_, layer), alpha in zip(layers, made, strict=True):  # none is changed if one is refused
        layer.alpha = alpha
        set_own(layer, **options)
        cls: Any = type(layer)
        object.__setattr__(layer, "__class__", _unitized(cls))
    return model


def _batch_norms(model: Any, select: Any) -> list[tuple[Path, Any]]:
    """Return the layers that can be converted; raise if there is none, and say why."""
    if isinstance(model, linen.Module):
        raise ValueError(
            f"`model` is a linen module ({type(model).__name__}): use unitnorm_jax.linen.unitize, "
            "or unitnorm_jax.unitize, which takes both."
        )
    nodes = nnx.iter_graph(model, graph=True)
    modules = [(path, node) for path, node in nodes if isinstance(node, nnx.Module)]
    if not modules:
        raise ValueError(
            f"`model` (={model!r:.80}) must be an nnx.Module, or a list or dictionary of such."
        )
    wrapped = [(path, module) for path, module in modules if isinstance(module, nnx.bridge.ToNNX)]
    for path, module in wrapped:
        if select is None and _keeps_statistics(module):
            raise ValueError(
                f"The linen module {_name(module)} at {_shown(path)} keeps batch statistics within "
                "nnx.bridge.ToNNX, where it cannot be converted. Wrap "
                "unitnorm_jax.linen.unitize(module) instead; or, if that is meant, leave it as it "
                "is by giving `select`, say select=nnx.BatchNorm."
            )
    found: list[tuple[Path, Any]] = [
        (path, module) for path, module in modules if _calls_as_batch_norm(module)
    ]
    if not found:
        unitized = [path for path, m in modules if isinstance(m, UnitizedBatchNorm)]
        if unitized:
            raise ValueError(
                f"`model` is unitized already: {len(unitized)} layers are UnitizedBatchNorm, at "
                f"{', '.join(map(_shown, unitized))}, and none is an nnx.BatchNorm. Set their "
                "`unit` or `alpha` by hand, or convert a model that is made anew."
            )
        names = sorted({_name(module) for _, module in modules})
        raise ValueError(
            f"No layer of `model` is an nnx.BatchNorm; its modules are {', '.join(names)}. "
            "A subclass with a __call__ of its own is left alone, and so is a linen module within "
            "nnx.bridge.ToNNX: wrap unitnorm_jax.linen.unitize(module) instead."
        )
    return found


def _select(layers: list[tuple[Path, Any]], select: Any) -> list[tuple[Path, Any]]:
    """Return the layers that a filter takes; raise if it takes none."""
    if select is None:
        return layers
    predicate = nnx.filterlib.to_predicate(select)
    if inspect.isfunction(predicate):
        try:
            inspect.signature(predicate).bind((), None)
        except TypeError as error:
            raise ValueError(
                f"`select` (={select}) must take the path and the layer, as other filters of nnx "
                f"do: lambda path, layer: ... ({error})."
            ) from None
    chosen = [(path, layer) for path, layer in layers if predicate(path, layer)]
    if not chosen:
        paths = ", ".join(_shown(path) for path, _ in layers)
        raise ValueError(
            f"`select` (={select}) takes no layer; the nnx.BatchNorm of `model` are at {paths}."
        )
    return chosen


def _calls_as_batch_norm(module: Any) -> bool:
    """Return whether a module computes what ``nnx.BatchNorm`` does."""
    return isinstance(module, nnx.BatchNorm) and type(module).__call__ is nnx.BatchNorm.__call__


def _keeps_statistics(module: nnx.Module) -> bool:
    """Return whether a wrapped linen module has been initialized with batch statistics."""
    nodes = nnx.iter_graph(module, graph=True)
    return any(path and path[-1] == "mean" and isinstance(v, nnx.BatchStat) for path, v in nodes)


def _name(module: Any) -> str:
    name = type(module).__name__
    if isinstance(module, nnx.bridge.ToNNX):
        return f"{name}({type(module.to_nnx__module).__name__})"
    return name


def _shown(path: Path) -> str:
    return "/".join(map(str, path)) or "its top"


def _alpha(
    layer: nnx.BatchNorm,
    alpha_init: Initializer,
    rngs: Any,
    alpha_metadata: Mapping[str, Any],
) -> nnx.Variable[Any]:
    """Return a layer's alpha, like its scale."""
    given = (variable for variable in (layer.scale, layer.bias) if variable is not None)
    like: Any = next(given, layer.mean)
    dtype = layer.param_dtype if like is layer.mean else like.get_raw_value().dtype
    value: Any
    if isinstance(like.get_raw_value(), jax.ShapeDtypeStruct):
        old = like.get_raw_value()
        new = jax.eval_shape(lambda: initial_alpha(alpha_init, rngs, old.shape, dtype))
        value = jax.ShapeDtypeStruct(new.shape, new.dtype, sharding=old.sharding)
    else:
        old = like[...]
        value = initial_alpha(alpha_init, rngs, jnp.shape(old), dtype)
        concrete = isinstance(old, jax.Array) and not isinstance(old, jax.core.Tracer)
        if concrete and old.committed:
            value = jax.device_put(value, old.sharding)
    metadata = like.get_metadata()
    if alpha_metadata:
        return nnx.Param(value, **metadata | dict(alpha_metadata))
    if metadata["ref"]:
        value = jax.new_ref(value)
    # Not by the constructor, which would place the value anew, and asks for a mesh to do so.
    return nnx.Param.from_metadata(value, metadata)


@functools.cache
def _unitized(cls: Any) -> Any:
    """Return the class that a converted layer has: a subclass of the one it had."""
    if cls is nnx.BatchNorm:
        return UnitizedBatchNorm

    def reduce(self: Any, protocol: Any) -> tuple[Any, ...]:
        del protocol  # classes made here have no name that pickle could find
        return _restore, (cls, vars(self).copy())

    body = {"__module__": cls.__module__, "__doc__": cls.__doc__, "__reduce_ex__": reduce}
    options = {"pytree": cls._pytree__is_pytree}
    bases = (UnitizedBatchNorm, cls)
    return types.new_class(f"Unitized{cls.__name__}", bases, options, lambda ns: ns.update(body))


def _restore(cls: type, state: dict[str, Any]) -> Any:
    made = _unitized(cls)
    layer: Any = object.__new__(made)
    vars(layer).update(state)
    return layer
