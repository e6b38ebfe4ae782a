"""Learning rate schedules by name: what ``--optim.schedule`` accepts."""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from experiments.config.experiment import OptimConfig


def make_schedule(config: OptimConfig, updates_per_epoch: int) -> optax.Schedule:
    """Return the learning rate of an update, counted from 0.

    Args:
        config: The optimizer.
        updates_per_epoch: Number of updates of each of its epochs.

    Example:
        >>> config = OptimConfig(epochs=4, schedule="piecewise", warmup=0.0, boundaries=(1, 3))
        >>> rate = make_schedule(config, updates_per_epoch=10)
        >>> [round(float(rate(update)), 4) for update in (0, 9, 10, 29, 30, 39)]
        [0.1, 0.1, 0.02, 0.02, 0.004, 0.004]
    """
    return _SCHEDULES[config.schedule](config, updates_per_epoch)


def _cosine(config: OptimConfig, updates_per_epoch: int) -> optax.Schedule:
    updates = config.epochs * updates_per_epoch
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=int(config.warmup * updates),
        decay_steps=updates,
    )


def _one_cycle(config: OptimConfig, updates_per_epoch: int) -> optax.Schedule:
    # Optax's own factors: from 1/25 of the largest rate, to 1/10,000 of that.
    return optax.cosine_onecycle_schedule(
        transition_steps=config.epochs * updates_per_epoch,
        peak_value=config.learning_rate,
        pct_start=config.warmup,
    )


def _piecewise(config: OptimConfig, updates_per_epoch: int) -> optax.Schedule:
    rate = optax.piecewise_constant_schedule(
        config.learning_rate,
        {epoch * updates_per_epoch: config.decay_rate for epoch in config.boundaries},
    )
    warmup = int(config.warmup * config.epochs * updates_per_epoch)
    if not warmup:
        return rate
    return lambda update: rate(update) * jnp.minimum(1.0, update / warmup)


_SCHEDULES: dict[str, Callable[[OptimConfig, int], optax.Schedule]] = {
    "cosine": _cosine,
    "one-cycle": _one_cycle,
    "piecewise": _piecewise,
}
