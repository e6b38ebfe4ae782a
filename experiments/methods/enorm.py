"""Equi-normalization after the optimizer's update: parameters, momentum and statistics."""

from functools import partial
from typing import Any

import jax
import optax

from experiments.config.methods import NormConfig
from experiments.methods.method import Context, Method
from experiments.models.preact_groups import preact_groups
from unitnorm_jax.contrib.enorm import EnormFactors, enorm_factors, enorm_rescale


def enorm(config: NormConfig, context: Context) -> Method:
    """Return one cycle of ``enorm_factors`` after every ``enorm_every`` updates."""
    del context
    balance = partial(balance_state, every=config.enorm_every, c=config.enorm_c, p=config.enorm_p)
    return Method(after_update=balance)


def balance_state(state: Any, *, every: int = 1, c: float = 1.0, p: float = 2) -> Any:
    """Return one cycle of equi-normalization, for updates that are multiples of ``every``.

    Args:
        state: A ``TrainState`` of a ``PreActResNet``.
        every: Updates from one cycle to the next.
        c: Asymmetry: outgoing norms become c times incoming ones, layer by layer.
        p: The norm.

    Returns:
        The state with parameters, optimizer buffers and running statistics rescaled: a network
        that computes the same.

    Raises:
        ValueError: If the network is not a ``PreActResNet``, or the optimizer keeps arrays whose
            scaling is not known here.
    """
    groups, depths = preact_groups(state.params)

    def cycle(state: Any) -> Any:
        factors = enorm_factors(
            state.params, groups, c=c, p=p, depths=depths, batch_stats=state.batch_stats
        )
        return state.replace(
            params=enorm_rescale(state.params, factors.params),
            batch_stats=enorm_rescale(state.batch_stats, factors.batch_stats),
            opt_state=rescale_optimizer(state.opt_state, factors),
        )

    if every == 1:
        return cycle(state)
    # A TrainState has functions in it, which a branch cannot return.
    arrays, tree = jax.tree.flatten(state)
    arrays = jax.lax.cond(
        state.step % every == 0,
        lambda arrays: jax.tree.leaves(cycle(jax.tree.unflatten(tree, arrays))),
        lambda arrays: arrays,
        arrays,
    )
    return jax.tree.unflatten(tree, arrays)


def rescale_optimizer(opt_state: Any, factors: EnormFactors) -> Any:
    """Return the state of an optax optimizer for the rescaled parameters.

    Gradients transform inversely to parameters, and so do averages of them: the momentum of
    ``optax.sgd`` and the first moment of ``optax.adam``; Adam's second moment by the square.

    Args:
        opt_state: State of ``optax.sgd``, ``optax.adam``, ``optax.adamw`` or a chain of such.
        factors: Of ``enorm_factors``.

    Raises:
        ValueError: If it has arrays of any other kind.
    """

    def known(node: Any) -> bool:
        return isinstance(node, optax.TraceState | optax.ScaleByAdamState)

    def rescale(node: Any) -> Any:
        if isinstance(node, optax.TraceState):
            return node._replace(trace=enorm_rescale(node.trace, factors.params, -1))
        if isinstance(node, optax.ScaleByAdamState):
            return node._replace(
                mu=enorm_rescale(node.mu, factors.params, -1),
                nu=enorm_rescale(node.nu, factors.params, -2),
            )
        if getattr(node, "ndim", 0):
            raise ValueError(
                "the optimizer keeps arrays other than the momentum of SGD and the moments of "
                "Adam; equi-normalization does not know how they scale. Use optax.sgd, "
                "optax.adam or optax.adamw."
            )
        return node

    return jax.tree.map(rescale, opt_state, is_leaf=known)
