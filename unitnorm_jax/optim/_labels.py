"""Which parameters are alphas: what ``optax.multi_transform`` and ``optax.masked`` ask for."""

from typing import Any

from unitnorm_jax.optim._where import map_alpha


def alpha_labels(params: Any) -> Any:
    """Return "alpha" for every alpha and "other" for all other parameters.

    For a learning rate of alpha's own, with ``optax.multi_transform``. Give it the function, not
    its result: then ``add_alpha`` can go on with the optimizer's state.

    Args:
        params: parameters.

    Returns:
        A tree like ``params``, of text.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from unitnorm_jax import optim
        >>> params = {"norm": {"alpha": jnp.zeros(3), "scale": jnp.ones(3)}}
        >>> optim.alpha_labels(params)
        {'norm': {'alpha': 'alpha', 'scale': 'other'}}
        >>> rates = {"alpha": optax.adam(1e-2), "other": optax.adam(1e-3)}
        >>> tx = optax.multi_transform(rates, optim.alpha_labels)
    """
    return map_alpha(lambda _: "alpha", lambda _: "other", params)


def only_alpha(params: Any) -> Any:
    """Return True for every alpha and False for all other parameters.

    Args:
        params: parameters.

    Returns:
        A tree like ``params``: a mask for ``optax.masked``.

    Example:
        >>> import optax
        >>> from unitnorm_jax import optim
        >>> pull_to_zero = optax.add_decayed_weights(1e-3, mask=optim.only_alpha)
    """
    return map_alpha(lambda _: True, lambda _: False, params)


def all_but_alpha(params: Any) -> Any:
    """Return False for every alpha and True for all other parameters.

    Weight decay pulls alpha to 0, to batch normalization; with this mask it does not.

    Args:
        params: parameters.

    Returns:
        A tree like ``params``: a mask for ``optax.adamw`` or ``optax.masked``.

    Example:
        >>> import optax
        >>> from unitnorm_jax import optim
        >>> tx = optax.adamw(1e-3, weight_decay=1e-4, mask=optim.all_but_alpha)
    """
    return map_alpha(lambda _: False, lambda _: True, params)
