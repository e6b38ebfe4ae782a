"""Batch statistics over groups of a batch, by ``vmap`` over the groups."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Apply = Callable[..., Any]


def by_group(
    apply: Apply, groups: int, constrain: Callable[[jax.Array], jax.Array] = lambda x: x
) -> Apply:
    """Return ``apply`` of a network with batch statistics over each of ``groups`` equal parts.

    Under plain ``jit`` an array is the whole batch, wherever its parts are, and its mean is the
    whole batch's. So the groups become an axis, over which the network is mapped. The updated
    running statistics are the mean of those of all groups (linear in the groups' statistics).

    Args:
        apply: ``apply(variables, x, train=..., mutable=...)`` of a Flax module; if the result is
            given ``rngs``, so is this, other keys for each group.
        groups: Number of groups; must divide the number of images.
        constrain: Applied to the images split in groups, ``(groups, n / groups, ...)``: may say
            on which devices they are.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> norm = nn.BatchNorm()
        >>> x = jnp.array([[1.0], [3.0], [10.0], [30.0]])
        >>> variables = norm.init(jax.random.key(0), x, use_running_average=True)
        >>> def apply(variables, x, train, mutable):
        ...     return norm.apply(variables, x, use_running_average=not train, mutable=mutable)
        >>> y, _ = by_group(apply, 2)(variables, x, train=True, mutable=["batch_stats"])
        >>> y.round(3).tolist()
        [[-1.0], [1.0], [-1.0], [1.0]]
    """

    def grouped(
        variables: Any, x: jax.Array, *, train: bool, mutable: Any = False, rngs: Any = None
    ) -> Any:
        if not train:  # With running averages images do not depend on each other.
            return apply(variables, x, train=False, mutable=mutable)
        if mutable not in (False, ["batch_stats"]):
            raise ValueError(
                f"`mutable` (={mutable}) must be False or ['batch_stats'] when statistics are of "
                "groups: other collections cannot be told apart from the groups' axis."
            )

        def one(part: jax.Array, number: jax.Array) -> Any:
            keys = jax.tree.map(lambda key: jax.random.fold_in(key, number), rngs)
            more = {"rngs": keys} if rngs else {}
            return apply(variables, part, train=True, mutable=mutable, **more)

        parts = constrain(x.reshape(groups, len(x) // groups, *x.shape[1:]))
        out = jax.vmap(one)(parts, jnp.arange(groups))
        logits, updated = out if mutable else (out, None)
        logits = logits.reshape(len(x), *logits.shape[2:])
        if not mutable:
            return logits
        return logits, jax.tree.map(lambda a: jnp.mean(a, axis=0), updated)

    return grouped
