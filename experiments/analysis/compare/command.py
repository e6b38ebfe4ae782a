"""The command that repeats a run, from its configuration."""

import dataclasses
import shlex
from typing import Any

from experiments.config.difference import FREE_FIELDS
from experiments.config.experiment import TrainConfig


def train_command(config: TrainConfig) -> str:
    """Return the command line of ``train`` that gives ``config``.

    Options that have their default are left out, and so are those that change no number. Where the
    data are is for the reader to say.

    Example:
        >>> train_command(TrainConfig(seeds=(0, 1)))
        'python -m experiments train --seeds 0 1'
    """
    flags = _flags(config, TrainConfig(), "")
    if config.data.data_dir is not None:
        flags += ["--data.data-dir", "FOLDER"]
    return shlex.join(["python", "-m", "experiments", "train", *flags])


def _flags(config: Any, default: Any, prefix: str) -> list[str]:
    flags = []
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        if prefix + field.name in FREE_FIELDS:
            continue
        name = prefix + field.name
        if dataclasses.is_dataclass(value):
            flags += _flags(value, usual, f"{name}.")
        elif value != usual:
            shown = name.removeprefix("devices.")  # Its options stand alone.
            flags += _flag(shown.replace("_", "-"), value, switch=field.type is bool)
    return flags


def _flag(name: str, value: Any, switch: bool) -> list[str]:
    if switch:
        *group, last = name.split(".")
        return ["--" + ".".join([*group, last if value else f"no-{last}"])]
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{name}", *map(str, values)]
