"""Checkpoints of models with ``nn.BatchNorm``, for the same models with ``UnitizedBatchNorm``."""

from typing import Any

import jax
import jax.numpy as jnp

from unitnorm_jax._nnx_objects import is_nnx
from unitnorm_jax.linen import _variable_trees as trees
from unitnorm_jax.linen._train_state import is_train_state, variables_of, with_params


def add_alpha(variables: Any, *, select: trees.Select | None = None) -> Any:
    """Turn the variables of a model with ``nn.BatchNorm`` into those of the unitized model.

    Every batch normalization gets an ``alpha`` of zeros in ``params``, so the model computes what
    it did before; the names of its modules must stay the same. A layer is one if a ``mean`` and a
    ``var`` of one shape are all that it keeps in ``batch_stats``, and it has no parameters but
    ``scale`` and ``bias`` of that shape. An alpha has the dtype, the sharding and the box of its
    layer's scale (or bias): a ``nn.Partitioned`` scale gives one to alpha.

    In a ``TrainState`` the state of the optimizer is made anew, by ``tx.init`` of the new
    parameters; then every array of the old state takes its old place. Only alpha's are new, and
    the updates of all other parameters are those that would have been, unless the optimizer mixes
    parameters (a global norm, ``optax.contrib.dog``, ``optax.lbfgs``) or draws noise for each
    (``optax.add_noise``). Counters go on: with the
    old count Adam no longer corrects for the zeros that its moments start at, so alpha's first
    step is larger: (1 - b1) / sqrt(1 - b2) times the rate, 3.2 times by default.

    Args:
        variables: what the model has: collections with ``batch_stats`` and, unless no layer has
            any, ``params``, as ``init`` or a checkpoint gives them, ``FrozenDict`` and boxed
            parameters among them; or a ``TrainState`` (anything with ``tx``, ``params``,
            ``opt_state`` and ``replace``) that has ``batch_stats``; or a state of ``flax.nnx``, or
            its pure dictionary, that holds parameters and statistics. Leaves may be
            ``jax.ShapeDtypeStruct``.
        select: which layers, a predicate of the path, such as "block_0/norm". None: all.

    Returns:
        The same kind of tree; the arrays in it are those given.

    Raises:
        ValueError: no layer is a batch normalization, a selected one has an ``alpha`` already, or
            the state of the optimizer is not one of ``tx``.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp
        >>> from unitnorm_jax.linen import UnitizedBatchNorm, add_alpha
        >>> x = jnp.ones((2, 3))
        >>> old = nn.BatchNorm(use_running_average=True).init(jax.random.key(0), x)
        >>> y = UnitizedBatchNorm(use_running_average=True).apply(add_alpha(old), x)
    """
    if is_train_state(variables):
        new = add_alpha(variables_of(variables), select=select)
        return with_params(variables, new["params"])
    flat = trees.flattened(variables)
    params = dict(flat.params)
    for layer, has_alpha in trees.batch_norms(flat, select, "variables").items():
        if has_alpha:
            raise ValueError(
                f"`params` has an `alpha` at {trees.name(layer)} already: it belongs to a "
                "UnitizedBatchNorm, and needs no conversion."
            )
        params.pop(layer, None)  # an empty dictionary, of a layer without parameters
        like = params.get((*layer, "scale"), params.get((*layer, "bias")))
        mean = flat.stats[(*layer, "mean")]
        params[(*layer, "alpha")] = _of_mean(mean) if like is None else trees.zeros_like(like)
    return flat.rebuild(params)


def _of_mean(mean: Any) -> Any:
    """Return the alpha of a layer without parameters."""
    value = trees.unboxed(mean)
    if isinstance(value, jax.ShapeDtypeStruct):
        zeros: Any = jax.ShapeDtypeStruct(value.shape, jnp.float32, sharding=value.sharding)
    else:
        zeros = jnp.zeros_like(value, jnp.float32)
    if is_nnx(mean, "Variable"):
        from flax import nnx

        return nnx.Param(zeros)
    return zeros
