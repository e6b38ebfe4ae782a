"""Checkpoints of models with ``UnitizedBatchNorm``, for the same models with ``nn.BatchNorm``."""

from typing import Any

import jax
import numpy as np

from unitnorm_jax.linen import _variable_trees as trees
from unitnorm_jax.linen._train_state import is_train_state, variables_of, with_params


def drop_alpha(variables: Any, *, select: trees.Select | None = None) -> Any:
    """Turn the variables of a unitized model into those of the model with ``nn.BatchNorm``.

    The inverse of ``add_alpha``, for the same trees. It must not change what the model computes,
    so every alpha that goes must be 0. In a ``TrainState`` the optimizer forgets alpha's moments
    and keeps all others.

    Args:
        variables: as ``add_alpha`` takes them, with values.
        select: which layers, a predicate of the path, such as "block_0/norm". None: all that
            have an alpha.

    Returns:
        The same kind of tree, without these alphas.

    Raises:
        ValueError: an alpha is not 0 everywhere, or no layer has one.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.linen import UnitizedBatchNorm, drop_alpha
        >>> x = jnp.ones((2, 3))
        >>> old = UnitizedBatchNorm(use_running_average=True).init(jax.random.key(0), x)
        >>> y = nn.BatchNorm(use_running_average=True).apply(drop_alpha(old), x)
    """
    if is_train_state(variables):
        new = drop_alpha(variables_of(variables), select=select)
        return with_params(variables, new.get("params", {}))
    flat = trees.flattened(variables)
    params = dict(flat.params)
    layers = trees.batch_norms(flat, select, "variables")
    layers = {layer: has_alpha for layer, has_alpha in layers.items() if has_alpha}
    if not layers:
        raise ValueError("No layer of `variables` has an `alpha`: there is none to drop.")
    for layer in layers:
        path = (*layer, "alpha")
        _check_zero(path, trees.unboxed(params.pop(path)))
    return flat.rebuild(params)


def _check_zero(path: trees.Path, alpha: Any) -> None:
    if isinstance(alpha, jax.core.Tracer | jax.ShapeDtypeStruct):
        raise ValueError(
            f"`drop_alpha` must see the value of {trees.name(path)}: call it outside of jit, with "
            "arrays."
        )
    value = np.asarray(alpha).astype(np.float32)
    if not np.all(value == 0):
        worst = value.flat[np.argmax(np.where(np.isnan(value), np.inf, np.abs(value)))]
        raise ValueError(
            f"`alpha` at {trees.name(path)} (={worst:g} in a channel) must be 0 everywhere: "
            "without it the model would be another function. Set it to 0 "
            "(unitnorm_jax.optim.set_alpha) if that is meant."
        )
