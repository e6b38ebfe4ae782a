"""Options of a new run that would do nothing, or cannot work: refused before anything is loaded.

Not when a configuration is made: the folder of an older run may have such values, and is read.
"""

import dataclasses
from pathlib import Path

from experiments.common.checks import local_path
from experiments.config.experiment import TrainConfig
from experiments.config.methods import CONVS, USED_BY

# Side of the images of data sets whose images are all alike, pixels.
SIDES = {"digits": 8, "mnist5k": 28, "mnist": 28, "cifar10": 32, "cifar100": 32}


def check_useful(config: TrainConfig, start: TrainConfig | None = None) -> None:
    """Raise ``ValueError`` naming the first option that does nothing or cannot work.

    Args:
        config: Of the run.
        start: What the command line changed; an experiment may have options for other methods.
            Default: the defaults.
    """
    if config.resume != "never" and (Path(str(config.run_dir)) / "config.json").exists():
        return  # What a run began with, it goes on with.
    data, optim, probe = config.data, config.optim, config.probe
    if data.data_dir is not None:
        _check_data_dir(data.dataset, data.data_dir)
    if data.image_size is not None and data.dataset in SIDES:
        raise ValueError(
            f"`image_size` (={data.image_size}) does nothing with {data.dataset}, whose images "
            f"have {SIDES[data.dataset]} pixels a side; it is of imagenet2012 and imagefolder. "
            "Leave it out."
        )
    side = SIDES.get(data.dataset, data.image_size or (224 if _crops(config) else None))
    if side is not None and data.max_shift is not None and data.max_shift >= side:
        raise ValueError(
            f"`max_shift` (={data.max_shift}) must be less than the side of the images, {side} "
            f"pixels in {data.dataset}: an image would leave the frame."
        )
    if optim.boundaries and optim.boundaries[-1] >= optim.epochs:
        raise ValueError(
            f"`boundaries` (={optim.boundaries}) must be before the end: `epochs` (={optim.epochs})"
            ". Train longer, or leave the later ones out."
        )
    _check_norm_options(config, start or TrainConfig())
    if probe.every and probe.images < 2:
        raise ValueError(
            f"`probe.images` (={probe.images}) must be at least 2: one image is no sample of a "
            "layer's outputs. Leave the option out for 16, or give --probe.every 0 to measure "
            "nothing."
        )


def _check_data_dir(dataset: str, data_dir: str) -> None:
    if dataset in ("digits", "mnist5k"):
        raise ValueError(
            f"`data_dir` (={data_dir!r}) does nothing with {dataset}, which is in a package. Leave "
            "it out."
        )
    if dataset == "imagefolder" or not data_dir.startswith("gs://"):  # ArrayRecord reads gs://.
        local_path("data_dir", data_dir)


def _check_norm_options(config: TrainConfig, start: TrainConfig) -> None:
    parts = {part for norm in config.norms for part in norm.split("+")}
    for field in dataclasses.fields(config.norm):
        value = getattr(config.norm, field.name)
        users = USED_BY.get(field.name)
        if users is None or value == getattr(start.norm, field.name) or parts & {*users}:
            continue
        names = [f"+{user}" if user in CONVS else user for user in users]
        raise ValueError(
            f"`{field.name}` (={value!r}) is of {', '.join(names)} alone, and `norms` are "
            f"{', '.join(config.norms)}; add {' or '.join(names)}, or leave the option out."
        )
    for name, choice in (("alpha_floor", "floor"), ("alpha_ramp", "ramp")):
        value = getattr(config.norm, name)
        if value != getattr(start.norm, name) and config.norm.alpha != choice:
            raise ValueError(
                f"`{name}` (={value!r}) is of --norm.alpha {choice} alone, and `alpha` is "
                f"{config.norm.alpha!r}; give --norm.alpha {choice}, or leave the option out."
            )


def _crops(config: TrainConfig) -> bool:
    return config.data.dataset == "imagenet2012"
