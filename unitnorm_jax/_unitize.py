"""One name for the conversion of linen and nnx models; only the one that is needed is loaded."""

import importlib
from typing import Any

from flax import linen

from unitnorm_jax._nnx_objects import is_nnx


def unitize(model: Any, **options: Any) -> Any:
    """Turn every batch normalization of a Flax model into a unitized one.

    A linen module is not changed: the model that computes with ``UnitizedBatchNorm`` is returned
    (``unitnorm_jax.linen.unitize``). An nnx module is changed in place and returned
    (``unitnorm_jax.nnx.unitize``).

    Args:
        model: a ``flax.linen.Module`` or a ``flax.nnx.Module``.
        **options: those of the function named above: ``select``, and the fields that
            ``UnitizedBatchNorm`` has beside those of Flax's, such as ``unit``.

    Returns:
        The converted model.

    Raises:
        ValueError: it is neither, or cannot be converted.

    Example:
        >>> from flax import nnx
        >>> import unitnorm_jax
        >>> rngs = nnx.Rngs(0)
        >>> model = nnx.Sequential(nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs))
        >>> model = unitnorm_jax.unitize(model, unit="rms")
    """
    if isinstance(model, linen.Module):
        room = "linen"
    elif is_nnx(model, "Module"):
        room = "nnx"
    else:
        raise ValueError(
            f"`model` (={model!r:.80}) must be an instance of flax.linen.Module or "
            "flax.nnx.Module; for a class, make the instance first."
        )
    return importlib.import_module(f"unitnorm_jax.{room}").unitize(model, **options)
