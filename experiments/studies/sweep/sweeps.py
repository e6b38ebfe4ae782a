"""The questions, and the runs that answer them.

A sweep has settings (a batch size, a learning rate); in each of them methods are compared, paired
by seed. On the digits, network and recipe are those of ``train``, but for what the
setting or method says; on CIFAR-10, those of ``experiments.configs``, for an accelerator.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

from experiments.config.experiment import ProbeConfig, TrainConfig
from experiments.config.probe import Measure
from experiments.configs import load

SEEDS = (0, 1, 2, 3, 4)


class Setting(NamedTuple):
    """One row of conditions.

    Attributes:
        name: As the table calls it.
        configs: One per method; the first is what the others are compared with.
    """

    name: str
    configs: tuple[TrainConfig, ...]


class Sweep(NamedTuple):
    """A question.

    Attributes:
        question: In words.
        settings: Where it is asked.
        apart: Whether each seed is a run by itself, all methods of the first seed first: for runs
            of an hour, which are recorded as they end.
    """

    question: str
    settings: tuple[Setting, ...]
    apart: bool = False

    def runs(self, setting: Setting) -> list[TrainConfig]:
        """Return the runs of a setting, in the order in which they are trained."""
        if not self.apart:
            return list(setting.configs)
        seeds = dict.fromkeys(seed for config in setting.configs for seed in config.seeds)
        return [
            dataclasses.replace(config, seeds=(seed,))
            for seed in seeds
            for config in setting.configs
            if seed in config.seeds
        ]


BASE = TrainConfig(norms=("bn",), seeds=SEEDS, probe=ProbeConfig(every=20, images=32))


def change(config: TrainConfig, **fields: Any) -> TrainConfig:
    """Return ``config`` with other values; a dictionary changes fields of a group.

    Example:
        >>> change(BASE, norms=("gn",), optim={"epochs": 3}).optim.epochs
        3
    """
    groups = {
        name: dataclasses.replace(getattr(config, name), **value)
        if isinstance(value, dict)
        else value
        for name, value in fields.items()
    }
    return dataclasses.replace(config, **groups)


def ubn(config: TrainConfig = BASE, **options: Any) -> TrainConfig:
    """Return ``config`` with unitized batch normalization."""
    return change(config, norms=("ubn",), norm=options)


UNITS = ("reference", "sample", "rms", "position")
# From the authors' start, and unitized from the start, in units that do not depend on the size of
# the map: what the narrower sweeps look at.
METHODS: tuple[Callable[[TrainConfig], TrainConfig], ...] = (
    lambda config: config,
    lambda config: ubn(config, unit="reference"),
    lambda config: ubn(config, unit="sample", alpha_init=1.0),
    lambda config: ubn(config, unit="rms", alpha_init=1.0),
)


def _setting(name: str, **fields: Any) -> Setting:
    config = change(BASE, **fields)
    return Setting(name, tuple(method(config) for method in METHODS))


def _cifar(name: str, title: str) -> Sweep:
    """Return an experiment of ``configs`` on CIFAR-10 as JPEG files, all seeds at once."""
    config = change(
        load(name)[0],
        norms=("bn",),
        seeds=SEEDS,
        seeds_together=True,
        data={"dataset": "imagefolder", "data_dir": "cifar10-jpeg"},
    )
    question = "Does unitized batch normalization beat batch normalization on CIFAR-10 (JPEG)?"
    return Sweep(question, (Setting(title, tuple(method(config) for method in METHODS)),))


def _cifar_study() -> Sweep:
    """Return the study that ``experiments/results/PROTOCOL.md`` describes."""
    base = change(
        load("cifar10_resnet18_short")[0],
        norms=("bn",),
        seeds=SEEDS[:3],
        data={"dataset": "imagefolder", "data_dir": "cifar10-jpeg"},
        optim={"epochs": 20, "learning_rate": 0.2, "weight_penalty": 2.5e-4},
        probe={"every": 195, "measures": get_args(Measure)},
    )
    methods = base, ubn(base), ubn(base, unit="rms", alpha_init=1.0)
    question = "Unitized batch normalization on all of CIFAR-10 (JPEG): see PROTOCOL.md."
    return Sweep(question, (Setting("ResNet-18, 20 epochs", methods),), apart=True)


def _rate(batch_size: int) -> float:
    """Return the learning rate of the recipe (0.1 for 64 images), scaled linearly."""
    return 0.1 * batch_size / 64


SWEEPS = {
    "units": Sweep(
        "Does unitized batch normalization beat batch normalization, and does it move less? Per "
        "unit, alpha started at 0 (the authors') and at 1, trained and fixed.",
        (
            Setting(
                "digits",
                (
                    BASE,
                    *(ubn(unit=unit) for unit in UNITS),
                    *(ubn(unit=unit, alpha_init=1.0) for unit in UNITS),
                    *(ubn(unit=unit, alpha_init=1.0, alpha="fixed") for unit in UNITS),
                ),
            ),
        ),
    ),
    "alpha": Sweep(
        "What tightens the bound, if training alpha through the loss does not: a penalty on the "
        "bound, a floor on alpha, a schedule from 0 to 1?",
        (
            Setting(
                "unit=sample",
                (
                    BASE,
                    ubn(unit="sample"),
                    *(ubn(unit="sample", bound_penalty=weight) for weight in (0.01, 0.1, 1.0)),
                    *(
                        ubn(unit="sample", alpha="floor", alpha_init=floor, alpha_floor=floor)
                        for floor in (0.5, 0.9)
                    ),
                    ubn(unit="sample", alpha="ramp"),
                    ubn(unit="sample", alpha_init=1.0, alpha="fixed"),
                ),
            ),
            Setting(
                "unit=rms",
                (
                    BASE,
                    ubn(unit="rms"),
                    ubn(unit="rms", alpha="floor", alpha_init=0.5),
                    ubn(unit="rms", alpha="ramp"),
                    ubn(unit="rms", alpha_init=1.0, alpha="fixed"),
                ),
            ),
        ),
    ),
    "learning-rate": Sweep(
        "Where does unitizing help or hurt: larger learning rates.",
        tuple(
            _setting(f"learning rate {rate:g}", optim={"learning_rate": rate})
            for rate in (0.1, 0.5, 1.0)
        ),
    ),
    "batch-size": Sweep(
        "Where does unitizing help or hurt: small and large batches, the learning rate scaled "
        "linearly with the batch.",
        tuple(
            _setting(
                f"batch {size}",
                optim={"batch_size": size, "learning_rate": _rate(size)},
                probe={"every": max(1, 20 * 64 // size)},
                seeds=SEEDS if size > 2 else SEEDS[:3],
            )
            for size in (2, 8, 32, 64, 512)
        ),
    ),
    "depth": Sweep(
        "Where does unitizing help or hurt: depth, with and without skip connections.",
        tuple(
            _setting(
                f"{6 * blocks + 2} layers, {'skip' if skip else 'no skip'} connections",
                model={"blocks": (blocks,) * 3, "skip": skip},
            )
            for blocks, skip in ((1, True), (1, False), (3, True), (3, False))
        ),
    ),
    "label-noise": Sweep(
        "Where does unitizing help or hurt: wrong labels.",
        tuple(
            _setting(f"{100 * share:g} % wrong labels", data={"label_noise": share})
            for share in (0.0, 0.2, 0.4)
        ),
    ),
    "methods": Sweep(
        "How does unitizing compare with other normalizers?",
        (
            Setting(
                "digits",
                (
                    *(method(BASE) for method in METHODS),
                    *(
                        change(BASE, norms=(norm,))
                        for norm in ("gn", "ln", "in", "rms", "bcn", "gn+ws", "normprop", "none")
                    ),
                ),
            ),
        ),
    ),
    "cifar10-study": _cifar_study(),
    "cifar10-resnet18": _cifar("cifar10_resnet18", "ResNet-18, 200 epochs"),
    "cifar10-resnet18-short": _cifar("cifar10_resnet18_short", "ResNet-18, 15 epochs"),
    "cifar10-resnet110": _cifar("cifar10_resnet110", "ResNet-110, 200 epochs"),
    "cifar10-resnet110-short": _cifar("cifar10_resnet110_short", "ResNet-110, 15 epochs"),
}
# What small machines can do, and needs no file.
ON_DIGITS = tuple(name for name in SWEEPS if not name.startswith("cifar10"))
