"""What people read for a method: one name from a norm and its options, in tables, figures, pages.

Records, folders and options keep the machine's names: "ubn unit=rms", as ``--base`` takes them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config.experiment import TrainConfig
from experiments.config.methods import NormConfig
from experiments.methods import Context, make_method

TITLES = {
    "bn": "BatchNorm",
    "ubn": "UnitizedBatchNorm",
    "gn": "GroupNorm",
    "none": "no norm",
    "affine": "a x + b",
    "ln": "LayerNorm",
    "in": "InstanceNorm",
    "rms": "RMSNorm",
    "bcn": "BatchChannelNorm",
    "bcn-micro": "BatchChannelNorm (micro-batches)",
    "normprop": "NormProp",
    "ic": "IndependentComponent",
    "ic-conv-relu": "IndependentComponent (IC-conv-ReLU)",
    "conv-relu-ic": "IndependentComponent (conv-ReLU-IC)",
    "bn-slices": "BatchNorm of slices",
    "kalman": "BatchKalmanNorm",
    "kalman-published": "BatchKalmanNorm (as published)",
    "ws": "weight standardization",
    "wn": "weight normalization",
    "enorm": "ENorm",
}


def label(name: str) -> str:
    """Return what people read for a method.

    Args:
        name: The machine's: a norm, and maybe options, each as "name=value".

    Example:
        >>> label("bn"), label("ubn alpha_init=1 unit=rms"), label("gn+ws")
        ('BatchNorm', 'UnitizedBatchNorm (rms, alpha_init=1)', 'GroupNorm + weight standardization')
    """
    norm, *options = name.split(" ")
    pairs = (option.partition("=") for option in options)
    return display_name(norm, {key: value if equal else "" for key, equal, value in pairs})


def display_name(norm: str, options: Mapping[str, Any]) -> str:
    """Return what people read for a norm with options that are not the default.

    The unit comes first and alone; a switch that is on is its name.

    Args:
        norm: As ``--norms`` takes it.
        options: By name.

    Example:
        >>> display_name("ubn", {"bessel_correction": True, "unit": "rms"})
        'UnitizedBatchNorm (rms, bessel_correction)'
    """
    title = " + ".join(TITLES.get(part, part) for part in norm.split("+"))
    words = [str(options["unit"])] if "unit" in options else []
    for key, value in options.items():
        if key != "unit":
            words.append(key if str(value) in ("", "True") else f"{key}={value}")
    if not words:
        return title
    start = f"{title[:-1]}, " if title.endswith(")") else f"{title} ("
    return f"{start}{', '.join(words)})"


def labels_of(config: TrainConfig) -> dict[str, str]:
    """Return what people read for every norm of one run, by norm.

    Example:
        >>> labels_of(TrainConfig(norms=("bn", "ubn"), norm=NormConfig(unit="rms")))
        {'bn': 'BatchNorm', 'ubn': 'UnitizedBatchNorm (rms)'}
    """
    methods = [(norm, used_options(norm, config.norm)) for norm in config.norms]
    return {method[0]: label(machine_name(method, methods)) for method in methods}


def machine_name(
    method: tuple[str, Mapping[str, Any]], methods: Sequence[tuple[str, Mapping[str, Any]]]
) -> str:
    """Return the norm, with what is not the default; and ubn's unit, where there are several.

    Args:
        method: A norm and the options that it uses, by their names in the configuration.
        methods: All that it stands beside.
    """
    norm, options = method
    defaults = {f"norm.{f.name}": f.default for f in dataclasses.fields(NormConfig)}
    parts = [norm]
    for name, value in options.items():
        differs = any(other.get(name, value) != value for _, other in methods)
        own = not any(name in other for theirs, other in methods if theirs != norm)
        usual = value == defaults.get(name)
        if (not usual and (own or differs)) or (differs and name == "norm.unit"):
            text = f"{value:g}" if isinstance(value, float) else str(value)
            parts.append(f"{name.removeprefix('norm.')}={text.replace(' ', '')}")
    return " ".join(parts)


def used_options(norm: str, config: NormConfig) -> dict[str, Any]:
    """Return the options that a method looks at, by their names in the configuration.

    Example:
        >>> sorted(used_options("gn", NormConfig()))
        ['norm.epsilon']
    """
    seen = _Seen(config)
    make_method(norm, seen, Context(schedule=lambda step: 0.0 * step))  # type: ignore[arg-type]
    return {f"norm.{name}": getattr(config, name) for name in sorted(seen.names)}


class _Seen:
    """Options, and which of them were looked at."""

    def __init__(self, config: NormConfig) -> None:
        self.config, self.names = config, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self.config, name)
