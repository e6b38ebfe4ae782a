"""What a row of the table of methods is: options in, the parts of a network out."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from experiments.common.checks import not_negative, positive
from experiments.models.preact_resnet import Conv, Dense, ModuleDef
from unitnorm_jax.contrib.batch_kalman_norm import check_gain
from unitnorm_jax.functional import check_unit

ALPHAS = ("trained", "fixed", "floor", "ramp")


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
    alpha: str = "trained"
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
        check_unit(self.unit)
        for name in ("alpha_init", "alpha_floor"):
            if not math.isfinite(value := getattr(self, name)):
                raise ValueError(f"`{name}` (={value}) must be a finite number.")
        if self.alpha not in ALPHAS:
            raise ValueError(
                f"`alpha` (={self.alpha!r}) is unknown; choose from {', '.join(ALPHAS)}."
            )
        if not 0 < self.alpha_ramp <= 1:
            raise ValueError(f"`alpha_ramp` (={self.alpha_ramp}) must be in (0, 1].")
        if self.alpha == "floor" and self.alpha_init < self.alpha_floor:
            raise ValueError(
                f"`alpha_init` (={self.alpha_init}) must be at least `alpha_floor` "
                f"(={self.alpha_floor}) with floor."
            )
        not_negative(bound_penalty=self.bound_penalty)
        check_gain(self.gain)
        if self.slice_size is not None:
            positive(slice_size=self.slice_size)


class Context(NamedTuple):
    """What a method may need to know of the job around it.

    Attributes:
        axis_name: Mapped axis over which batch statistics are taken, None where there is none.
        schedule: Learning rate of an update, counted from 0; None outside of training.
        updates: Number of updates of the job; None outside of training.
        axis_index_groups: Groups of indices within that axis, to share statistics in groups.
        dtype: Of activations; None is that of images and parameters.
    """

    axis_name: str | None = None
    schedule: Callable[[Any], Any] | None = None
    updates: int | None = None
    axis_index_groups: list[list[int]] | None = None
    dtype: Any = None

    @property
    def axes(self) -> dict[str, Any]:
        """What a layer with batch statistics must be given, if devices are to share them."""
        return {"axis_name": self.axis_name, "axis_index_groups": self.axis_index_groups}


class NoNorm(nn.Module):
    """The identity, with the fields that networks pass to a normalization layer."""

    use_running_average: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return ``x``."""
        return x


AfterUpdate = Callable[[Any], Any]
Bound = Callable[[Mapping[str, Any], Mapping[str, Any], int], jax.Array | None]


class Method(NamedTuple):
    """The parts of a network that a method replaces; the defaults replace nothing.

    Attributes:
        norm: Makes a normalization layer from ``use_running_average`` and ``name``.
        conv: Makes a convolution, with the fields of ``flax.linen.Conv``.
        dense: Makes the classifier, with the fields of ``flax.linen.Dense``.
        network: Makes the network from ``num_classes``, ``blocks``, ``widths``, ``bottleneck`` and
            the three above, if it must be another than the configured one: ``PreActResNet`` with
            further fields set, or any module that has these and ``norm_paths()``.
        after_update: Maps the state after each update of the optimizer to the state that counts;
            None leaves it.
        penalty: Given the network and a batch of its input, returns a further term of the loss, a
            function of the parameters; None: there is none.
        bound: The method's own bound on the shift of a layer that uses the statistics of the batch,
            given its parameters before and after an update and the numbers per sample; None, or it
            returns None, where there is none.
    """

    norm: ModuleDef = NoNorm
    conv: ModuleDef = Conv
    dense: ModuleDef = Dense
    network: ModuleDef | None = None
    after_update: AfterUpdate | None = None
    penalty: Callable[[nn.Module, Any], Callable[[Any], jax.Array]] | None = None
    bound: Bound | None = None


Builder = Callable[[NormConfig, Context], Method]
