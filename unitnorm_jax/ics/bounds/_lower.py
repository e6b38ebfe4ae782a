"""Closed-form lower bounds on W1, L1-L4; see `bounds` for what they share."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from unitnorm_jax.ics.distances import _rounding, _samples, _wide
from unitnorm_jax.ics.distances._compiled import compiled
from unitnorm_jax.ics.distances._line import line_em_distance, line_error
from unitnorm_jax.ics.distances._samples import (
    After,
    Before,
    Given,
    Samples,
    Scalar,
    given,
    mean,
    mean_error,
    norm_error,
    norms,
)

ORDERS = (2, 3, 4)  # of the moments that a probe compares, L3


def mean_lower_bound(x: Before, y: After) -> Scalar:
    """L1: ``W1 >= |E X - E Y|``.

    Proof: |E (X - Y)| <= E |X - Y| under every coupling. Attained by translations; 0 between
    exactly batch-normalized outputs: what batch normalization leaves, the mean cannot see.

    Args:
        x: Before, (n, ...).
        y: After, (m, ...).

    Returns:
        The bound.

    Raises:
        ValueError: If shapes do not match or samples are empty or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(mean_lower_bound(jnp.zeros((3, 4)), jnp.ones((3, 4)))), 4)
        2.0

    References:
        Derived here.
    """
    return _mean(given(x, y))


def mean_difference(s: Samples, paired: jax.Array | None) -> jax.Array:
    """L1; `paired`: mean |x_i - y_i| where samples are paired, which is as small as the drift."""
    (n, d), m = s.x.shape, s.y.shape[0]
    u = _rounding.unit_roundoff(s.x.dtype)
    if paired is not None:
        apart, size = mean(s.x - s.y), paired
    else:
        x, y = s.x - s.x[:1], s.y - s.x[:1]  # a large common offset would swamp the means
        apart, size = mean(x) - mean(y), mean(norms(x)) + mean(norms(y))
    value = norms(apart[None, :])[0]
    slack = u * (norm_error(d) * value + 1.05 * (mean_error(max(n, m)) + 2) * size)
    return _samples.lower_bound(s, value, slack + _samples.underflow(d, s.x.dtype))


def _mean_of(pair: Given) -> jax.Array:
    s = _samples.prepare(pair)
    return mean_difference(s, pair_distance(s))


_mean = compiled(_mean_of)


def pair_distance(s: Samples) -> jax.Array | None:
    """Mean |x_i - y_i|, which scales the rounding of what is summed pair by pair."""
    return mean(norms(s.x - s.y)) if s.x.shape == s.y.shape else None


def norm_lower_bound(x: Before, y: After) -> Scalar:
    """L2: ``W1 >= | E |X| - E |Y| |``.

    Proof: the norm is 1-Lipschitz, so ||X| - |Y|| <= |X - Y| under every coupling. The mean
    norm depends on moments of every order. Attained by scalings.

    Args:
        x: Before, (n, ...).
        y: After, (m, ...).

    Returns:
        The bound.

    Raises:
        ValueError: If shapes do not match or samples are empty or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(norm_lower_bound(jnp.full((3, 4), 1.0), jnp.full((3, 4), -2.0))), 4)
        2.0

    References:
        Derived here.
    """
    return _norm(given(x, y, centre=False))


def norm_difference(s: Samples, paired: jax.Array | None) -> jax.Array:
    """L2. Paired: ``|x| - |y| = (x - y) . (x + y) / (|x| + |y|)``, as small as the drift."""
    (n, d), m = s.x.shape, s.y.shape[0]
    u = _rounding.unit_roundoff(s.x.dtype)
    sizes = norms(s.x), norms(s.y)
    if paired is not None:
        total = sizes[0] + sizes[1]
        product = _rounding.tree_sum((s.x - s.y) * (s.x + s.y), axis=1)
        apart, size = mean(product / jnp.where(total > 0, total, 1)), paired
    else:
        means = mean(sizes[0]), mean(sizes[1])
        apart, size = means[0] - means[1], means[0] + means[1]
    units = _rounding.tree_depth(d) + norm_error(d) + mean_error(max(n, m)) + 5
    slack = 1.05 * units * u * size + 2 * _samples.underflow(d, s.x.dtype)
    return _samples.lower_bound(s, jnp.abs(apart), slack)


def _norm_of(pair: Given) -> jax.Array:
    s = _samples.prepare(pair, centre=False)
    return norm_difference(s, pair_distance(s))


_norm = compiled(_norm_of)


def moment_lower_bound(x: Before, y: After, order: int | float) -> Scalar:
    """L3: ``W1 >= max_i | E X_i^p - E Y_i^p | / (p M_i^(p-1))``, |values of coordinate i| <= M_i.

    Proof: x^p / (p M^(p-1)) has slope at most 1 on [-M, M]. These are the high-order moments
    which batch normalization does not control. M_i is the largest magnitude met in coordinate i
    (sharper than one M for all). Attained at p = 1 by a translation along one axis.

    Args:
        x: Before, (n, ...).
        y: After, (m, ...).
        order: p, an integer >= 1.

    Returns:
        The bound.

    Raises:
        ValueError: If shapes do not match or samples are empty or complex, or p < 1.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(moment_lower_bound(jnp.zeros((2, 1)), jnp.full((2, 1), 3.0), order=2)), 4)
        1.5

    References:
        Derived here.
    """
    if order < 1 or order != int(order):
        raise ValueError(f"`order` (={order}) must be an integer >= 1; 1 compares the means.")
    return _moment(given(x, y, centre=False), order=int(order))


def moment_difference(s: Samples, paired: jax.Array | None, order: int) -> jax.Array:
    """L3. Paired: by factors of ``u^p - v^p``, one of which is u - v, as small as the drift."""
    (n, d), m = s.x.shape, s.y.shape[0]
    u = _rounding.unit_roundoff(s.x.dtype)
    depth = mean_error(max(n, m))
    if paired is not None:
        value = jnp.max(moment_differences(s.x, s.y, (order,))) - moment_slack(n, order, u) * paired
    else:
        largest, unit = _largest(s.x, s.y)
        apart = mean((s.x / unit) ** order) - mean((s.y / unit) ** order)
        slack = 2.2 * (2 * order + depth + 2) * u * largest / order
        value = jnp.max(jnp.abs(apart) * (largest / order) - slack)
    return _samples.lower_bound(s, value, 4 * u * jnp.abs(value) + _samples.underflow(d, s.x.dtype))


def moment_differences(x: jax.Array, y: jax.Array, orders: Sequence[int]) -> jax.Array:
    """L3 of every coordinate of paired samples, (n, d) -> (orders, d), rounding not considered."""
    largest, unit = _largest(x, y)
    before, after, apart = x / unit, y / unit, (x - y) / unit
    powers = [_power_difference(before, after, apart, p) for p in orders]
    apart = mean(jnp.stack(powers, axis=1))
    return jnp.abs(apart) * (largest[None, :] / np.array(orders, x.dtype)[:, None])


def moment_slack(n: int, order: int, u: float) -> float:
    """Return the error of `moment_differences`, in units of the mean distance of pairs.

    Each step of `_power_difference` adds p + 4 roundoffs to those of u - v, times p.
    """
    return 1.1 * (2 * order + 4 * order.bit_length() + mean_error(n) + 8) * u


def _largest(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the largest magnitude in each coordinate, (d,), and what to divide by, (1, d)."""
    largest = jnp.maximum(jnp.max(jnp.abs(x), axis=0), jnp.max(jnp.abs(y), axis=0))
    return largest, jnp.where(largest > 0, largest, 1)[None, :]


def _power_difference(u: jax.Array, v: jax.Array, apart: jax.Array, order: int) -> jax.Array:
    """``u^p - v^p`` of numbers of size 1 at most, from their difference."""
    if order == 1:
        return apart
    if order % 2:
        rest = _power_difference(u, v, apart, order - 1)
        return u * rest + v ** (order - 1) * apart
    half = order // 2
    return _power_difference(u, v, apart, half) * (u**half + v**half)


def _moment_of(pair: Given, *, order: int) -> jax.Array:
    s = _samples.prepare(pair, centre=False)
    return moment_difference(s, pair_distance(s), order)


_moment = compiled(_moment_of, static=("order",))


def projection_lower_bound(
    x: Before, y: After, direction: Shaped[Array | np.ndarray, "..."] | None = None
) -> Scalar:
    """L4: ``W1 >= W1(theta . X, theta . Y)``, |theta| = 1.

    Proof: |theta . (X - Y)| <= |X - Y| under every coupling. On the line W1 is exact by sorting.
    Attained by translations along theta.

    Args:
        x: Before, (n, ...).
        y: After, (m, ...).
        direction: theta, of the trailing shape, normalised here (0 proves nothing: the bound is 0);
            default the best coordinate axis.

    Returns:
        The bound.

    Raises:
        ValueError: If shapes do not match or samples are empty or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> theta = jnp.array([3.0, 4.0])
        >>> d = projection_lower_bound(jnp.zeros((3, 2)), jnp.ones((3, 2)), theta)
        >>> round(float(d), 4)
        1.4

    References:
        Derived here.
    """
    if direction is not None and direction.shape != x.shape[1:]:
        raise ValueError(
            f"`direction` (=shape {direction.shape}) must have the trailing shape of the samples "
            f"(={x.shape[1:]}); give one number per coordinate."
        )
    pair = given(x, y)
    if direction is None:
        return _axis(pair)
    _samples.check_real("direction", direction)
    (direction,), _ = _wide.narrow((direction.reshape(1, -1),), centre=False)
    return _along(pair, direction)


def best_coordinate(s: Samples, distances: jax.Array) -> jax.Array:
    """L4 for the axes, from W1 of every coordinate."""
    error = line_error(s.x.shape[0], s.y.shape[0], s.x.dtype)
    value = jnp.max(distances)
    return _samples.lower_bound(s, value, error * value + _samples.underflow(1, s.x.dtype))


def _best_axis(pair: Given) -> jax.Array:
    s = _samples.prepare(pair)
    return best_coordinate(s, line_em_distance(s.x, s.y))


def _along_direction(pair: Given, direction: Any) -> jax.Array:
    s = _samples.prepare(pair)
    d, dtype = s.x.shape[1], s.x.dtype
    theta = jnp.asarray(direction).astype(dtype)
    theta = _rounding.times_power_of_two(theta, _rounding.scale_exponent(theta, theta, d))
    length = norms(theta)[0]
    theta = theta / jnp.where(length > 0, length, 1)  # a direction of 0 proves nothing
    x, y = s.x - s.x[:1], s.y - s.x[:1]  # a large common offset would swamp the projections
    value = line_em_distance(*(_rounding.tree_sum(z * theta, axis=1) for z in (x, y)))
    size = mean(norms(x)) + mean(norms(y))
    u = _rounding.unit_roundoff(dtype)
    relative = line_error(x.shape[0], y.shape[0], dtype) + 2 * norm_error(d) * u
    slack = relative * value + 1.1 * (_rounding.tree_depth(d) + 4) * u * size
    s = s._replace(finite=s.finite & jnp.all(jnp.isfinite(theta)))
    return _samples.lower_bound(s, value, slack + _samples.underflow(d, dtype))


_axis, _along = compiled(_best_axis), compiled(_along_direction)
