"""Normalization layers by name: what ``--norms`` accepts."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from experiments.models.preact_resnet import ModuleDef
from unitnorm_jax.functional import check_unit
from unitnorm_jax.linen import UnitizedBatchNorm


class NoNorm(nn.Module):
    """The identity, with the fields that networks pass to a normalization layer."""

    use_running_average: bool | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns ``x``."""
        return x


def group_norm(
    *, use_running_average: bool | None = None, group_size: int = 8, **fields: Any
) -> nn.GroupNorm:
    """Returns ``flax.linen.GroupNorm``; it has no running average, so the flag is dropped."""
    del use_running_average
    return nn.GroupNorm(num_groups=None, group_size=group_size, **fields)


def _bn(*, momentum: float, epsilon: float, axis_name: str | None, **others: Any) -> ModuleDef:
    del others
    return partial(nn.BatchNorm, momentum=momentum, epsilon=epsilon, axis_name=axis_name)


def _ubn(*, alpha_init: float, **options: Any) -> ModuleDef:
    return partial(UnitizedBatchNorm, alpha_init=nn.initializers.constant(alpha_init), **options)


def _gn(*, epsilon: float, **others: Any) -> ModuleDef:
    del others
    return partial(group_norm, epsilon=epsilon)


def _none(**others: Any) -> ModuleDef:
    del others
    return NoNorm


# One row per method: its builder takes every option and uses those it knows.
NORMS: dict[str, Callable[..., ModuleDef]] = {"bn": _bn, "ubn": _ubn, "gn": _gn, "none": _none}


def check_norm(name: str) -> None:
    """Raises ``ValueError`` naming the valid choices if no norm is called ``name``."""
    if name not in NORMS:
        raise ValueError(f"norm (={name!r}) is unknown; choose from {', '.join(NORMS)}.")


def make_norm(
    name: str,
    *,
    momentum: float = 0.99,
    epsilon: float = 1e-5,
    unit: str | float = "reference",
    alpha_init: float = 0.0,
    axis_name: str | None = None,
) -> ModuleDef:
    """Returns what makes the normalization layers of a network.

    Args:
        name: Key of ``NORMS``.
        momentum: Decay rate of the running statistics (bn, ubn).
        epsilon: Added to variances (and to the squared norm of ubn).
        unit: What ubn divides by, see ``UnitizedBatchNorm``.
        alpha_init: Initial alpha of ubn, in every channel.
        axis_name: Mapped axis over which bn and ubn average their statistics.

    Returns:
        A function of ``use_running_average`` and ``name`` that makes one layer.

    Raises:
        ValueError: If ``name`` or ``unit`` is unknown.

    Example:
        >>> layer = make_norm("ubn", unit="rms")(use_running_average=False)
        >>> type(layer).__name__, layer.unit
        ('UnitizedBatchNorm', 'rms')
    """
    check_norm(name)
    check_unit(unit)
    return NORMS[name](
        momentum=momentum, epsilon=epsilon, unit=unit, alpha_init=alpha_init, axis_name=axis_name
    )


def paper_norms(
    image_size: int, stages: int = 3, scale_coe: float = 1.0
) -> tuple[partial[UnitizedBatchNorm], ...]:
    """Returns the authors' unitization layers, one for each stage of a ``PreActResNet``.

    Their layers differ from the default in three ways, all observed by running their code: the
    variance is corrected, epsilon and momentum are Keras's, and the number of positions is fixed
    when the network is built, whatever the size of the images it is given later.

    Args:
        image_size: Height or width of the (square) images, pixels; 32 for CIFAR.
        stages: Number of stages; each but the first halves the image.
        scale_coe: Further factor of the number of positions.

    Returns:
        One layer factory per stage, for ``PreActResNet(norm=...)``.
    """
    positions = [(-(-image_size // 2**stage)) ** 2 for stage in range(stages)]
    return tuple(
        partial(
            UnitizedBatchNorm,
            momentum=0.99,
            epsilon=1e-3,
            unit=1.0 / (p * scale_coe),
            bessel_correction=True,
        )
        for p in positions
    )
