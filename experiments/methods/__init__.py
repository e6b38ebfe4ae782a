"""Methods by name: what ``--norms`` accepts.

A method is one row of ``NORMS``: a builder that takes every option and uses those it knows, and
returns the parts of the network that it replaces. A further name after a "+" is a row of
``CONVS``, and replaces convolutions and classifier under any norm that leaves them alone; enorm
there replaces nothing, but balances the weights after updates.
"""

from functools import partial
from typing import Any

from experiments.config.methods import NormConfig, check_norm
from experiments.methods import (
    batch_channel,
    enorm,
    independent_component,
    kalman,
    norm_prop,
    plain,
    unitized,
    weights,
)
from experiments.methods.method import AfterUpdate
from experiments.methods.method import Builder as Builder
from experiments.methods.method import Context as Context
from experiments.methods.method import Method as Method
from experiments.methods.method import NoNorm as NoNorm
from experiments.models.fields import with_fields
from experiments.models.preact_resnet import Conv, Dense, ModuleDef

NORMS: dict[str, Builder] = {
    "bn": plain.bn,
    "ubn": unitized.ubn,
    "gn": plain.gn,
    "none": plain.none,
    "affine": plain.affine,
    "ln": plain.ln,
    "in": plain.instance,
    "rms": plain.rms,
    "bcn": batch_channel.bcn,
    "bcn-micro": batch_channel.bcn_micro,
    "normprop": norm_prop.norm_prop,
    "ic": independent_component.ic,
    "ic-conv-relu": partial(independent_component.ic, order="ic-conv-relu"),
    "conv-relu-ic": partial(independent_component.ic, order="conv-relu-ic"),
    "bn-slices": kalman.bn_slices,
    "kalman": kalman.kalman,
    "kalman-published": kalman.kalman_published,
}
PARTS = ("norm", "conv", "dense")  # Those whose activations have the dtype of the context.
CONVS: dict[str, Builder] = {"ws": weights.ws, "wn": weights.wn, "enorm": enorm.enorm}


def make_method(
    name: str, config: NormConfig | None = None, context: Context | None = None
) -> Method:
    """Return the parts of the network that a method replaces.

    Args:
        name: A key of ``NORMS``, or one with a key of ``CONVS`` behind a "+".
        config: Options; default: theirs.
        context: The job around it; default: no mapped axis, no learning rate.

    Raises:
        ValueError: If ``name`` is unknown, or its two halves replace the same part.

    Example:
        >>> method = make_method("ubn", NormConfig(unit="rms"))
        >>> layer = method.norm(use_running_average=False)
        >>> type(layer).__name__, layer.unit
        ('UnitizedBatchNorm', 'rms')
    """
    check_norm(name)
    config, context = config or NormConfig(), context or Context()
    norm, *convs = name.split("+")
    method = NORMS[norm](config, context)
    for conv in convs:
        if (method.conv, method.dense) != (Conv, Dense):
            raise ValueError(
                f"norm (={name!r}): {norm} brings convolutions of its own, so that {conv} cannot "
                f"replace them; choose {norm} alone, or another norm with +{conv}."
            )
        further = CONVS[conv](config, context)
        method = method._replace(
            conv=further.conv,
            dense=further.dense,
            after_update=_in_turn(method.after_update, further.after_update),
        )
    if context.dtype is None:
        return method
    parts = {part: with_fields(getattr(method, part), dtype=context.dtype) for part in PARTS}
    return method._replace(**parts)


def _in_turn(first: AfterUpdate | None, second: AfterUpdate | None) -> AfterUpdate | None:
    if first is None or second is None:
        return first or second
    return lambda state: second(first(state))


def make_norm(name: str, *, axis_name: str | None = None, **options: Any) -> ModuleDef:
    """Return what makes the normalization layers, for methods that replace nothing else.

    Args:
        name: A key of ``NORMS``.
        axis_name: Mapped axis over which batch statistics are taken.
        **options: Fields of ``NormConfig``.

    Raises:
        ValueError: If ``name`` or an option is not valid, or the method replaces other parts too.

    Example:
        >>> layer = make_norm("ubn", unit="rms")(use_running_average=False)
        >>> type(layer).__name__, layer.unit
        ('UnitizedBatchNorm', 'rms')
    """
    method = make_method(name, NormConfig(**options), Context(axis_name))
    if method._replace(bound=None) != Method(norm=method.norm):
        raise ValueError(
            f"norm (={name!r}) replaces more of the network than its normalization layers, or has "
            "a part in its training; build the network from make_method."
        )
    return method.norm
