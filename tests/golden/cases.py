"""How the authors' configurations are written with this library's arguments."""

from typing import Any

import numpy as np

from tests.golden import Case

NAMES = {"gamma": "scale", "beta": "bias", "alpha": "alpha", "x": "x"}


def options(case: Case) -> dict[str, Any]:
    """Keyword arguments of the layer."""
    config = case.config
    image_size = config["image_size"] or np.prod(config["shape"][1:-1])
    custom = config["image_size"] or config["scale_coe"] != 1
    return {
        "axis": config["axis"],
        # They hand float32(1 - momentum) to their moving average: 0.99 is 0.99 + 2.2e-10.
        "momentum": 1 - float(np.float32(1 - config["momentum"])),
        "epsilon": config["epsilon"],
        "unit": 1 / float(image_size * config["scale_coe"]) if custom else "reference",
        "bessel_correction": True,
    }


def params(case: Case) -> dict[str, np.ndarray]:
    """``alpha``, and ``scale`` and ``bias`` if the case has them."""
    return {NAMES[k]: case.arrays[k] for k in ("alpha", "gamma", "beta") if k in case.arrays}


def running(case: Case, when: str) -> tuple[np.ndarray, np.ndarray]:
    """Running mean and variance: "before", or "after<step>"."""
    return case.arrays[f"moving_mean_{when}"], case.arrays[f"moving_variance_{when}"]


def batches(case: Case) -> list[np.ndarray]:
    """The batches of the successive updates."""
    steps = range(2, case.config["steps"] + 1)
    return [case.arrays["x"], *(case.arrays[f"x_step{t}"] for t in steps)]


def gradients(case: Case, prefix: str) -> dict[str, np.ndarray]:
    """Those of ``sum(y * dy)``; ``prefix`` "g_" is training, "ginfer_" inference."""
    grads = {new: case.arrays.get(prefix + old) for old, new in NAMES.items()}
    return {k: v for k, v in grads.items() if v is not None}
