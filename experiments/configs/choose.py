"""Finds the configuration that a command line names."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.common.checks import check_choice
from experiments.config.experiment import TrainConfig

_HELPERS = {"choose", "recipes", "__main__"}


class Choice(NamedTuple):
    """What a command line starts from.

    Attributes:
        name: Of the experiment; None if the command line names none.
        config: Its configuration.
        card: What its file says of it.
        arguments: The rest of the command line, which changes it.
    """

    name: str | None
    config: TrainConfig
    card: str
    arguments: list[str]


def names() -> list[str]:
    """Return the names of all experiments.

    Example:
        >>> "cifar10_resnet18" in names()
        True
    """
    found = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    return sorted(set(found) - _HELPERS)


def load(name: str) -> tuple[TrainConfig, str]:
    """Return configuration and run card of an experiment.

    Raises:
        ValueError: If there is none called ``name``.

    Example:
        >>> config, card = load("cifar10_resnet18")
        >>> config.optim.epochs, card.splitlines()[0]
        (200, 'ResNet-18 on CIFAR-10, as the authors train it: 200 epochs.')
    """
    check_choice("experiment", name, names())
    module = importlib.import_module(f"experiments.configs.{name}")
    return module.CONFIG, inspect.cleandoc(module.__doc__ or "")


def choose(arguments: Sequence[str] | None) -> Choice:
    """Read the name of an experiment off the front of a command line.

    Args:
        arguments: Command line without the program's name; None for this process's.

    Raises:
        ValueError: If it begins with a name that no experiment has.

    Example:
        >>> choose(["cifar10_resnet18", "--norms", "gn"]).arguments
        ['--norms', 'gn']
        >>> choose(["--norms", "gn"]).name
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and not words[0].startswith("-"):
        config, card = load(words[0])
        return Choice(words[0], config, card, words[1:])
    card = (
        f"{inspect.cleandoc(TrainConfig.__doc__ or '')}\n\nThe name of an experiment in front of "
        f"the options replaces their defaults: {', '.join(names())}. python -m experiments configs "
        "tells what they are."
    )
    return Choice(None, TrainConfig(), card, words)
