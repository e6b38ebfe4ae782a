"""The trained networks of a run of ``experiments.train``, and what is done to them, compiled."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from experiments import config as configs
from experiments import record
from experiments.build import build_program, make_model
from experiments.data import Dataset
from experiments.evaluate import restore_final
from experiments.norms import Context
from unitnorm_jax.linen import collect_statistics, noisy_outputs, track

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
    """Returns the functions of one model.

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


def read_config(run_folder: Path) -> configs.TrainConfig:
    """Returns the configuration of a finished run.

    Raises:
        ValueError: If the folder is not that of a finished run.
    """
    record.read_json(run_folder / "summary.json")
    return configs.from_dict(record.read_json(run_folder / "config.json"))


def load_networks(run_folder: Path, dataset: Dataset, noisy: bool) -> Iterator[Network]:
    """Yields the final state of every norm and seed of a finished run of ``experiments.train``.

    Args:
        run_folder: Its folder.
        dataset: The images it was trained on.
        noisy: Whether the outputs of layers are to be noisy.

    Raises:
        ValueError: If the folder is not that of a finished run, or a checkpoint is damaged.
    """
    config = read_config(run_folder)
    results = record.read_json(run_folder / "summary.json")["results"]
    for norm in config.norms:
        program = build_program(config, norm, dataset)
        model = make_model(config, norm, dataset.num_classes, Context())
        steps = make_steps(model, noisy)
        for result in (r for r in results if r["norm"] == norm):
            state = restore_final(run_folder, config, program, dataset, result)
            variables = {"params": state.params, "batch_stats": state.batch_stats}
            yield Network(norm, result["seed"], variables, steps)
