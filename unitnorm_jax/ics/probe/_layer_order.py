"""In which order a model calls its layers."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict

from unitnorm_jax._interception import intercepted, new_pass


def layer_order(
    model: nn.Module, variables: Mapping[str, Any], *args: Any, **kwargs: Any
) -> tuple[str, ...]:
    """Return the layers that have parameters of their own, in the order of their first calls.

    What ``ics.measures.gradient_ics`` wants as `layers`.

    Args:
        model: A linen module.
        variables: Its collections, or their shapes.
        *args: For ``model.apply``; nothing is computed.
        **kwargs: For ``model.apply``.

    Returns:
        Paths, joined with "/"; "" is the model itself. Layers that are not called come last.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> model = nn.Sequential([nn.Dense(4), nn.LayerNorm(), nn.Dense(2)])
        >>> variables = model.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> layer_order(model, variables, jnp.ones((1, 3)))
        ('layers_0', 'layers_1', 'layers_2')
    """
    owners = dict.fromkeys("/".join(path[:-1]) for path in flatten_dict(variables["params"]))
    called: dict[str, None] = {}

    def see(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        path = "/".join(context.module.path)
        if path in owners and context.method_name != "setup":
            called.setdefault(path)
        return next_fun(*args, **kwargs)

    def apply(variables: Any) -> Any:
        mutable = [*(name for name in variables if name != "params"), new_pass()]
        return model.apply(variables, *args, mutable=mutable, **kwargs)

    with intercepted(see):
        jax.eval_shape(apply, dict(variables))
    return (*called, *(owner for owner in owners if owner not in called))
