"""Methods by name, and their options; without JAX, so that ``--help`` need not wait for it.

``experiments.methods`` has what they are.
"""

import dataclasses
import math
from typing import Literal, get_args

from experiments.common.checks import check_choice, not_negative, positive

Alpha = Literal["trained", "fixed", "floor", "ramp"]
UNITS = ("reference", "sample", "rms", "position")
NORMS = (
    *("bn", "ubn", "gn", "none", "affine", "ln", "in", "rms", "bcn", "bcn-micro", "normprop"),
    *("ic", "ic-conv-relu", "conv-relu-ic", "bn-slices", "kalman", "kalman-published"),
)
CONVS = ("ws", "wn", "enorm")
SLICED = ("bn-slices", "kalman", "kalman-published")  # Statistics are of ``slice_size`` images.
# Norms that undo the scaling of a single channel, as enorm asks. Others, GroupNorm for one, mix
# channels.
BALANCED = ("none", "bn", "ubn")
# The norms, or weights, that look at an option; all look at the others.
USED_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("unit", "alpha_init", "alpha", "alpha_floor", "alpha_ramp"), ("ubn",)),
    **dict.fromkeys(("bound_penalty", "bessel_correction"), ("ubn",)),
    "num_groups": ("bcn", "bcn-micro"),
    "rate": ("bcn-micro",),
    "ic_rate": ("ic", "ic-conv-relu", "conv-relu-ic"),
    **dict.fromkeys(("enorm_every", "enorm_c", "enorm_p"), ("enorm",)),
    **dict.fromkeys(("slice_size", "gain"), SLICED),
}


@dataclasses.dataclass(frozen=True)
class NormConfig:
    """Options of the methods; each uses those it knows."""

    momentum: float = 0.9
    """Decay rate of the running statistics, in [0, 1): new = m * old + (1 - m) * batch."""
    epsilon: float = 1e-5
    """Added to the variance, and to the squared norm of ubn."""
    unit: float | str = "reference"
    """What ubn divides by: reference, sample, rms, position, or a positive number."""
    alpha_init: float = 0.0
    """Initial alpha of ubn, in every channel: 0 starts as batch normalization, 1 unitized."""
    alpha: Alpha = "trained"
    """What becomes of alpha in training: trained, fixed (stays at ALPHA_INIT), floor (trained, but
    set to ALPHA_FLOOR where an update leaves it below), or ramp (not trained: from ALPHA_INIT to 1
    in equal steps over the first ALPHA_RAMP of all updates)."""
    alpha_floor: float = 0.5
    """Smallest alpha of floor."""
    alpha_ramp: float = 0.5
    """Fraction of all updates, in (0, 1], after which alpha is 1 with ramp."""
    bound_penalty: float = 0.0
    """Factor of a further term of the loss: the mean over layers of ubn's bound on the shift, in
    units of that of batch normalization (unitnorm_jax.ics.unitized_bound_penalty)."""
    bessel_correction: bool = False
    """Whether ubn corrects the variance as the authors' code does."""
    num_groups: int = 4
    """Groups of channels of bcn and bcn-micro; must divide every width. The published code has 32,
    for networks eight times as wide."""
    rate: float | str = "learning-rate"
    """Weight of a batch in the estimates of bcn-micro: learning-rate (what the optimizer uses at
    that update), or a number in [0, 1]."""
    ic_rate: float = 0.05
    """Probability that dropout sets a value of an ic layer to 0, in [0, 1)."""
    enorm_every: int = 1
    """+enorm: updates from one cycle of equi-normalization to the next."""
    enorm_c: float = 1.0
    """+enorm: asymmetry; above 1 deeper layers get larger norms (the paper's: up to 1.2)."""
    enorm_p: float = 2.0
    """+enorm: balance the p-norms of weights; 2 is the energy of weight decay."""
    slice_size: int | None = 2
    """Images per slice of bn-slices and kalman; must divide the batch. None: the whole batch."""
    gain: float = 0.1
    """Weight of a slice's own moments against the predicted ones in kalman, in [0, 1]."""

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 <= self.momentum < 1:
            raise ValueError(f"`momentum` (={self.momentum}) must be in [0, 1).")
        positive(epsilon=self.epsilon, num_groups=self.num_groups)
        if isinstance(self.rate, str):
            if self.rate != "learning-rate":
                raise ValueError(
                    f"`rate` (={self.rate!r}) must be learning-rate, or a number in [0, 1]."
                )
        elif not 0 <= self.rate <= 1:
            raise ValueError(f"`rate` (={self.rate}) must be in [0, 1], or learning-rate.")
        if not 0 <= self.ic_rate < 1:
            raise ValueError(f"`ic_rate` (={self.ic_rate}) must be in [0, 1).")
        positive(enorm_every=self.enorm_every, enorm_c=self.enorm_c, enorm_p=self.enorm_p)
        _check_unit(self.unit)
        for name in ("alpha_init", "alpha_floor"):
            if not math.isfinite(value := getattr(self, name)):
                raise ValueError(f"`{name}` (={value}) must be a finite number.")
        check_choice("alpha", self.alpha, get_args(Alpha))
        if not 0 < self.alpha_ramp <= 1:
            raise ValueError(f"`alpha_ramp` (={self.alpha_ramp}) must be in (0, 1].")
        if self.alpha == "floor" and self.alpha_init < self.alpha_floor:
            raise ValueError(
                f"`alpha_init` (={self.alpha_init}) must be at least `alpha_floor` "
                f"(={self.alpha_floor}) with floor."
            )
        not_negative(bound_penalty=self.bound_penalty)
        if not 0 <= self.gain <= 1:
            raise ValueError(f"`gain` (={self.gain}) must be in [0, 1].")
        if self.slice_size is not None:
            positive(slice_size=self.slice_size)


def check_norm(name: str) -> None:
    """Raise ``ValueError`` naming the valid choices if no method is called ``name``."""
    norm, *convs = name.split("+")
    check_choice("norm", norm, NORMS)
    if len(convs) > 1:
        raise ValueError(f"norm (={name!r}) has more than one '+'; give one, as in gn+ws.")
    for conv in convs:
        if conv not in CONVS:
            raise ValueError(
                f"conv (={conv!r} in {name!r}) is unknown; choose from {', '.join(CONVS)}."
            )
    if convs == ["enorm"] and norm not in BALANCED:
        raise ValueError(
            f"norm (={name!r}) would change what the network computes: {norm} does not undo the "
            f"scaling of single channels. Choose {', '.join(n + '+enorm' for n in BALANCED)}."
        )


def _check_unit(unit: float | str) -> None:
    valid = unit in UNITS if isinstance(unit, str | bool) else 0 < unit < math.inf
    if not valid:
        raise ValueError(
            f"`unit` (={unit!r}) must be one of {', '.join(map(repr, UNITS))}, or a finite kappa > "
            "0."
        )
