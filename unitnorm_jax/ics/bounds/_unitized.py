"""The bound on W1 between unitized outputs, in alpha, scale, bias and dimension."""

import math
import operator
from typing import SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

Channels = Num[Array | np.ndarray, "..."] | float | int
Unit = str | float | int | np.floating | np.integer


def unit_radius(unit: Unit, positions: SupportsIndex, channels: SupportsIndex) -> float:
    """Largest norm R of a unitized sample at alpha = 1: ``|xhat_n| rsqrt(s_n + eps) <= R``.

    From the definition of s_n, with P positions and C channels:

    =============  ====================================  =============
    unit           s_n                                   R
    =============  ====================================  =============
    "reference"    sum_{p,c} xhat^2 / P^2                P
    "sample"       sum_{p,c} xhat^2                      1
    "rms"          sum_{p,c} xhat^2 / (P C)              sqrt(P C)
    "position"     sum_c xhat^2, per position            sqrt(P)
    kappa          kappa sum_c mean_p xhat^2             sqrt(P/kappa)
    =============  ====================================  =============

    In all but "position", ``s_n = |xhat_n|^2 / R^2``. There each of the P positions has at most
    norm 1. For eps = 0 the norm is R exactly, for every sample (and position) that is not 0.

    Args:
        unit: As in the layer: a name, or the factor kappa > 0.
        positions: P, 1 for a dense layer.
        channels: C.

    Returns:
        R.

    Raises:
        ValueError: If `unit` does not exist or kappa, P or C is not positive.

    Example:
        >>> [unit_radius(unit, 16, 4) for unit in ("reference", "sample", "rms", "position", 0.25)]
        [16.0, 1.0, 8.0, 4.0, 8.0]

    References:
        Derived here.
    """
    # As Python's: those of numpy wrap round.
    positions, channels = operator.index(positions), operator.index(channels)
    if positions < 1 or channels < 1:
        raise ValueError(
            f"`positions` (={positions}) and `channels` (={channels}) must be at least 1; "
            "a dense layer has 1 position."
        )
    names = {
        "reference": float(positions),
        "sample": 1.0,
        "rms": math.sqrt(positions * channels),
        "position": math.sqrt(positions),
    }
    if isinstance(unit, str):
        if unit not in names:
            raise ValueError(
                f"`unit` (={unit!r}) must be one of {', '.join(names)}, or a positive number kappa."
            )
        return names[unit]
    if not unit > 0:
        raise ValueError(
            f"`unit` (={unit}) must be positive as a number; s_n = unit * sum_c mean_p xhat^2."
        )
    return math.sqrt(positions / float(unit))


def unitized_upper_bound(
    alpha: Channels,
    scale: Channels = 1.0,
    bias: Channels = 0.0,
    *,
    channels: SupportsIndex,
    positions: SupportsIndex = 1,
    unit: Unit = "reference",
    alpha_after: Channels | None = None,
    scale_after: Channels | None = None,
    bias_after: Channels | None = None,
    norm_before: Num[Array | np.ndarray, ""] | float | int | None = None,
    norm_after: Num[Array | np.ndarray, ""] | float | int | None = None,
) -> Float[Array, ""]:
    """W1 between the outputs of a unitized layer before and after an update is at most this.

    With y = scale * xhat * (alpha rsqrt(s + eps) + 1 - alpha) + bias, R = `unit_radius`::

        W1 <=   max_c |scale alpha| R + max_c |scale (1 - alpha)| E|xhat|      (before)
              + max_c |scale' alpha'| R + max_c |scale' (1 - alpha')| E|xhat'|  (after)
              + sqrt(P) |bias - bias'|

    Proof (derived here). By the triangle inequality through the point masses at the two biases,
    W1 <= E |Y - bias| + |bias - bias'| + E |Y' - bias'|, the bias being the same vector at P
    positions. Each term: ``|y_n - bias| <= max_c |scale alpha| |xhat_n| r_n
    + max_c |scale (1 - alpha)| |xhat_n|``, and |xhat_n| r_n <= R.

    With the same parameters on both sides it is at most
    ``max|scale| (2 R max|alpha| + max|1 - alpha| (E|xhat| + E|xhat'|))``, and at alpha = 1,
    unit = "sample", scale = 1 it is 2: free of the dimension and of the noise in the statistics.
    The parameters alone decide. What an update does to the parameters themselves enters through
    the last line, and through the sides' own alpha and scale.

    E|xhat| where not given: sqrt(P C), which holds for outputs normalized with the statistics of
    their own batch, since E|xhat|^2 = P sum_c v_c / (v_c + eps) (Jensen). With running or noisy
    statistics it does NOT hold: measure E|xhat| and give it.

    Equality: two point masses at distance R on opposite sides of the bias, at alpha = 1 and
    eps = 0 (possible with running statistics). With batch statistics it is approached, not
    attained: with C = P = 1, n - 1 equal values and an outlier on one side give
    W1 = 2 (n - 2) / n against 2. At alpha = 0 (batch normalization) U1 is sharper by
    sqrt(2): sqrt(2 d) against 2 sqrt(d), because there the means are 0.

    Args:
        alpha: Before, per channel (C,) or one number.
        scale: Before, likewise.
        bias: Before, likewise.
        channels: C.
        positions: P, 1 for a dense layer.
        unit: As in the layer.
        alpha_after: After, default as before.
        scale_after: After, default as before.
        bias_after: After, default as before.
        norm_before: E|xhat| before, the mean norm of the normalized sample over all positions and
            channels; default sqrt(P C).
        norm_after: The same after.

    Returns:
        The bound, in the unit of the output.

    Raises:
        ValueError: If a parameter is neither one number nor one per channel, or `unit` is invalid.

    Example:
        >>> unitized_upper_bound(1.0, channels=64, positions=49, unit="sample")
        Array(2., dtype=float32)
        >>> unitized_upper_bound(0.0, channels=64, positions=4)  # batch normalization
        Array(32., dtype=float32)

    References:
        Derived here; Y. Huang, Y. Yu, An internal covariate shift bounding algorithm for deep
        neural networks by unitizing layers' outputs, 2020 (the layer, and the claim).
    """
    positions, channels = operator.index(positions), operator.index(channels)
    radius = unit_radius(unit, positions, channels)
    typical = math.sqrt(positions * channels)

    def side(alpha, scale, norm):
        size = typical if norm is None else norm
        unitized = jnp.max(jnp.abs(scale * alpha)) * radius
        return unitized + jnp.max(jnp.abs(scale * (1 - alpha))) * size

    parameters = {"alpha": alpha, "scale": scale, "bias": bias}
    given = {"alpha": alpha_after, "scale": scale_after, "bias": bias_after}
    before = {k: _per_channel(k, v, channels) for k, v in parameters.items()}
    after = {
        k: before[k] if v is None else _per_channel(f"{k}_after", v, channels)
        for k, v in given.items()
    }
    moved = jnp.sqrt(positions * jnp.sum(jnp.square(before["bias"] - after["bias"])))
    return (
        side(before["alpha"], before["scale"], norm_before)
        + side(after["alpha"], after["scale"], norm_after)
        + moved
    )


def _per_channel(name: str, value: Channels, channels: int) -> jax.Array:
    array = jnp.asarray(value)
    array = array.astype(jnp.promote_types(array.dtype, jnp.float32))
    if array.shape not in ((), (channels,)):
        raise ValueError(
            f"`{name}` (=shape {array.shape}) must be one number or one per channel "
            f"(channels={channels}); drop its axes of length 1."
        )
    return jnp.broadcast_to(array, (channels,))
