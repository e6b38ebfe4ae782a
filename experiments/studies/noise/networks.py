"""The trained networks of a run of ``train``, and what is done to them, compiled."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from experiments.training.restored import Restored
from unitnorm_jax.contrib.noise_aware_batch_norm import collect_statistics, noisy_outputs, track

Variables = dict[str, Any]


class Network(NamedTuple):
    """One trained network.

    Attributes:
        norm: Name of its norm.
        seed: Seed of its training.
        variables: ``params`` and, if it has any, ``batch_stats``.
        steps: Its compiled functions; the same for every seed.
    """

    norm: str
    seed: int
    variables: Variables
    steps: "Steps"

    @property
    def keeps_statistics(self) -> bool:
        """Whether there is anything to recalibrate or track."""
        return bool(self.variables.get("batch_stats"))


class Steps(NamedTuple):
    """Functions of (variables, images, key, strength of the output noise), jitted.

    Attributes:
        predict: Gives logits.
        collect: Gives the statistics of the batch, for ``recalibrate``.
        track: Gives logits and new variables; has the rate as a further argument.
    """

    predict: Callable[..., jax.Array]
    collect: Callable[..., Any]
    track: Callable[..., tuple[jax.Array, Variables]]


def make_steps(model: nn.Module, noisy: bool) -> Steps:
    """Return the functions of one model.

    Args:
        model: Network with ``__call__(x, train)``.
        noisy: Whether the outputs of its layers are noisy; without, key and strength are unused.
    """

    def under_noise(run: Callable[..., Any]) -> Callable[..., Any]:
        def step(variables: Variables, x: Any, key: jax.Array, strength: Any, *rest: Any) -> Any:
            if not noisy:
                return run(variables, x, *rest)
            with noisy_outputs(key, strength):
                return run(variables, x, *rest)

        return jax.jit(step)

    return Steps(
        predict=under_noise(partial(model.apply, train=False)),
        collect=under_noise(partial(collect_statistics, model, train=False)),
        track=under_noise(lambda v, x, rate: track(model, v, x, rate=rate, train=False)),
    )


def make_networks(trained: Sequence[Restored], noisy: bool) -> Iterator[Network]:
    """Yield the networks of a finished run, norm by norm.

    Args:
        trained: Its final states.
        noisy: Whether the outputs of layers are to be noisy.
    """
    for norm in dict.fromkeys(one.norm for one in trained):
        mine = [one for one in trained if one.norm == norm]
        steps = make_steps(mine[0].program.model, noisy)
        yield from (Network(norm, one.seed, one.variables, steps) for one in mine)
