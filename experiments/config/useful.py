"""Options of a new run that would do nothing, or cannot work: refused before anything is loaded.

Not when a configuration is made: the folder of an older run may have such values, and is read.
"""

from experiments.config.experiment import TrainConfig

# Side of the images of data sets whose images are all alike, pixels.
SIDES = {"digits": 8, "mnist5k": 28, "mnist": 28, "cifar10": 32, "cifar100": 32}


def check_useful(config: TrainConfig) -> None:
    """Raise ``ValueError`` naming the first option that does nothing or cannot work."""
    data, optim, probe = config.data, config.optim, config.probe
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
    if config.norm.bound_penalty and not any(n.partition("+")[0] == "ubn" for n in config.norms):
        raise ValueError(
            f"`bound_penalty` (={config.norm.bound_penalty}) is of ubn alone, and `norms` are "
            f"{', '.join(config.norms)}; add ubn, or leave the penalty out."
        )
    if probe.every and probe.images < 2:
        raise ValueError(
            f"`probe.images` (={probe.images}) must be at least 2: one image is no sample of a "
            "layer's outputs. Leave the option out for 16, or give --probe.every 0 to measure "
            "nothing."
        )


def _crops(config: TrainConfig) -> bool:
    return config.data.dataset == "imagenet2012"
