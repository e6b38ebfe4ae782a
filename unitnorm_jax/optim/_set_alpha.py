"""Alpha as one wants it."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from unitnorm_jax.optim._where import has_alpha, map_alpha


def set_alpha(
    tree: Any, value: float | int | Float[Array, ""] | Callable[[Array], Any] = 0.0
) -> Any:
    """Return parameters, or a state of training, with other alphas.

    Args:
        tree: parameters; collections of variables; a ``TrainState``, or anything with ``params``
            and ``replace``; or a state of nnx. The state of an optimizer in it is left as it is.
        value: the alpha of every channel, may be traced; or a function that maps each layer's
            alpha to its new one. By default 0, batch normalization.

    Returns:
        The same kind of tree.

    Raises:
        ValueError: there is no alpha.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.optim import set_alpha
        >>> params = {"norm": {"alpha": jnp.ones(2), "scale": jnp.ones(2)}}
        >>> print(set_alpha(params, 0.5)["norm"]["alpha"])
        [0.5 0.5]
        >>> print(set_alpha(params, lambda alpha: alpha / 4)["norm"]["alpha"])
        [0.25 0.25]
    """
    if hasattr(tree, "params") and hasattr(tree, "replace"):
        return tree.replace(params=set_alpha(tree.params, value))
    if not has_alpha(tree):
        raise ValueError(
            "`tree` has no alpha: no leaf of that name in a layer with at most `scale`, `bias`, "
            "`mean` and `var` beside it. Give the parameters of a unitized model."
        )

    def new(alpha: Array) -> Array:
        given = value(alpha) if callable(value) else value
        return jnp.broadcast_to(jnp.asarray(given, alpha.dtype), alpha.shape)

    return map_alpha(new, lambda leaf: leaf, tree)
