"""What to do where a model cannot be applied for its layers' outputs."""

from collections.abc import Callable
from typing import Any

import jax
from flax import errors


def explained(
    error: Exception, mode: str, layers: list[str], apply: Callable[[], Any]
) -> str | None:
    """Return the rule that was broken, and the way out; None for an error that is the model's own.

    Args:
        error: Raised while the model was applied and outputs were taken.
        mode: "train" or "eval".
        layers: Whose outputs had been taken by then.
        apply: Applies the model without taking outputs.
    """
    if isinstance(error, errors.ModifyScopeVariableError) and mode == "eval":
        return (
            'In mode "eval" the model must not write its collections, but it did: ask it for the '
            'running statistics with `eval_kwargs`, for example {"train": False}, or set '
            f'`mode` to "train". Flax says: {error}'
        )
    if isinstance(error, errors.ScopeCollectionNotFound | errors.ScopeVariableNotFoundError):
        return (
            "The variables lack a variable that the model reads; give all collections that "
            f"`model.init` makes, for example batch_stats beside params. Flax says: {error}"
        )
    if isinstance(error, errors.ScopeParamShapeError):
        return (
            "The variables do not have the shapes that the model gives its parameters. If each "
            "device has a copy of them, along a first axis that jax.pmap and "
            "flax.jax_utils.replicate make, give one: flax.jax_utils.unreplicate(variables). Flax "
            f"says: {error}"
        )
    if isinstance(error, NameError) and "axis name" in str(error):
        return (
            "The model's layers reduce over a mapped axis that does not exist here; give "
            "`ICSProbe` its name, or a tuple of all names, as `axis_name`, or take a copy of the "
            f"model without it, for it has the same variables. JAX says: {error}"
        )
    if isinstance(error, NotImplementedError) and not str(error):
        return (
            "The model's layers use a mapped axis in a way that JAX cannot map, such as "
            "`axis_index_groups`; take a copy of the model without groups "
            "(axis_index_groups=None), for it has the same variables."
        )
    if layers and isinstance(error, TypeError | ValueError) and _succeeds(apply):
        return (
            "The model works, but not while the outputs of layers are taken out of it: every "
            "branch of nn.cond and nn.switch must call the same of the wanted layers, as often and "
            "with outputs of one shape. Leave out with `layers` those that only some branches "
            f"call; outputs were taken of {', '.join(map(repr, dict.fromkeys(layers)))}. JAX says: "
            f"{error}"
        )
    return None


def _succeeds(apply: Callable[[], Any]) -> bool:
    try:
        jax.eval_shape(apply)
    except Exception:
        return False
    return True
