"""Closed-form upper bounds on W1, U1-U3; see `bounds` for what they share."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from unitnorm_jax.ics.distances import _rounding, _samples, _wide
from unitnorm_jax.ics.distances._compiled import compiled
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


def moment_upper_bound(x: Before, y: After) -> Scalar:
    """U1: ``W1 <= sqrt( sum_i var x_i + var y_i + (E x_i - E y_i)^2 )``.

    Proof: the independent coupling has E |X - Y|^2 = the sum; Jensen. Between two exactly
    batch-normalized outputs it is sqrt(2 d): bounded, but growing with the dimension, and with
    every error of the statistics. Attained: see `experiments.studies.bounds`.

    Args:
        x: Before, (n, ...).
        y: After, (m, ...).

    Returns:
        The bound, in the unit of x.

    Raises:
        ValueError: If shapes do not match or samples are empty or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([[-1.0], [1.0]])
        >>> round(float(moment_upper_bound(x, x)), 4)
        1.4142

    References:
        Derived here.
    """
    return _moment(given(x, y))


def moment(s: Samples) -> jax.Array:
    """U1. Any centre in the place of a mean can only raise the bound."""
    (n, d), m = s.x.shape, s.y.shape[0]
    u = _rounding.unit_roundoff(s.x.dtype)
    x, y = s.x - s.x[:1], s.y - s.x[:1]  # a large common offset would swamp the variances
    means = mean(x), mean(y)
    squares = sum(
        mean(jnp.square(z - centre[None, :])) for z, centre in zip((x, y), means, strict=True)
    )
    apart = jnp.square(means[0] - means[1])
    value = jnp.sqrt(_rounding.tree_sum(squares + apart))
    # Rounding moves a point and a mean by parts of the size of the centred points.
    size = sum(jnp.sqrt(_rounding.tree_sum(jnp.square(centre))) for centre in means) + 2 * value
    depth = mean_error(max(n, m))
    slack = u * ((norm_error(d) + depth) * value + 1.1 * (depth + 4) * size)
    return _samples.upper_bound(s, value, slack + _underflow(s))


_moment = compiled(lambda pair: moment(_samples.prepare(pair)))


def moment_upper_bound_from_statistics(
    x_mean: Shaped[Array | np.ndarray, "*d"],
    x_var: Shaped[Array | np.ndarray, "*d"],
    y_mean: Shaped[Array | np.ndarray, "*d"],
    y_var: Shaped[Array | np.ndarray, "*d"],
) -> Scalar:
    """U1 from the moments alone: ``sqrt( sum_i var x_i + var y_i + (E x_i - E y_i)^2 )``.

    For outputs normalized by noisy statistics: means off by delta_i, variances by a factor.

    Args:
        x_mean: Mean of each coordinate before.
        x_var: Variance of each coordinate before.
        y_mean: Mean after.
        y_var: Variance after.

    Returns:
        The bound.

    Raises:
        ValueError: If shapes do not match.

    Example:
        >>> import jax.numpy as jnp
        >>> zero, one = jnp.zeros(8), jnp.ones(8)
        >>> round(float(moment_upper_bound_from_statistics(zero, one, zero, one)), 4)
        4.0

    References:
        Derived here.
    """
    for name, array in (("x_var", x_var), ("y_mean", y_mean), ("y_var", y_var)):
        _samples.check_real(name, array)
        if array.shape != x_mean.shape:
            raise ValueError(
                f"`{name}` (=shape {array.shape}) must have the shape of `x_mean` "
                f"(={x_mean.shape}); broadcast it first."
            )
    means = given(*(z.reshape(1, *z.shape) for z in (x_mean, y_mean)))
    variances, errors = _wide.narrow(tuple(z.reshape(1, -1) for z in (x_var, y_var)), centre=False)
    tiny = float(np.finfo(np.float32).tiny)
    underflows = any(
        error is not None and bool(((np.abs(narrowed) < tiny) & (np.asarray(z) != 0)).any())
        for z, narrowed, error in zip((x_var, y_var), variances, errors, strict=True)
    )
    return _moments(means, *variances, underflows=underflows)


def _of_moments(means: Given, x_var: Any, y_var: Any, *, underflows: bool) -> jax.Array:
    x, y, *errors = _samples.as_matrices(means)
    d, dtype = x.shape[1], x.dtype
    variance = sum(jnp.asarray(v).reshape(1, -1).astype(dtype) for v in (x_var, y_var))
    # Variances have the scale of squares, so they are scaled twice by the power of two of a root.
    k = _rounding.scale_exponent(x - y, jnp.sqrt(jnp.abs(variance)), d)
    scaled = lambda z: _rounding.times_power_of_two(z, k)  # noqa: E731
    squares = scaled(scaled(variance)) + jnp.square(scaled(x - y))
    error = _samples.mean_error_of_rows(*errors)
    if underflows:  # What of variances is below float32; else their rounding is relative.
        lost = jnp.asarray(math.sqrt(2 * d * float(jnp.finfo(dtype).tiny)), dtype)
        error = lost if error is None else error + lost
    s = Samples(x, y, k, error, jnp.all(jnp.isfinite(squares)))
    value = jnp.sqrt(_rounding.tree_sum(squares[0]))
    slack = 2 * (norm_error(d) + 2) * _rounding.unit_roundoff(dtype) * value
    return _samples.upper_bound(s, value, slack + jnp.where(value > 0, _underflow(s), 0))


_moments = compiled(_of_moments, static=("underflows",))


def radius_upper_bound(
    x: Before, y: After, point: Shaped[Array | np.ndarray, "..."] | None = None
) -> Scalar:
    """U2: ``W1 <= E |X - m| + E |Y - m|`` for any point m.

    Proof: the triangle inequality through a point mass at m, from which W1 is E |X - m|.
    Attained when m lies between all of X and all of Y, on a line.

    Args:
        x: Before, (n, ...).
        y: After, (m, ...).
        point: m, of the trailing shape; default the mean of both sample means.

    Returns:
        The bound.

    Raises:
        ValueError: If shapes do not match or samples are empty or complex.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(radius_upper_bound(jnp.full((2, 1), -1.0), jnp.full((3, 1), 1.0))), 4)
        2.0

    References:
        Derived here.
    """
    if point is not None and point.shape != x.shape[1:]:
        raise ValueError(
            f"`point` (=shape {point.shape}) must have the trailing shape of the samples "
            f"(={x.shape[1:]}); give one number per coordinate."
        )
    if point is None:
        return _radius(given(x, y), None)
    _samples.check_samples(x, y)
    _samples.check_real("point", point)
    # Rounding the point gives another point, for which the bound holds as well.
    (x, y, point), (*errors, _) = _wide.narrow((x, y, point.reshape(1, *point.shape)), centre=True)
    return _radius(Given(x, y, *errors), point)


def radius(s: Samples, point: jax.Array | None = None) -> jax.Array:
    """U2. Distances from a point that is given, rounding and all, (1, d), are direct ones."""
    (n, d), m = s.x.shape, s.y.shape[0]
    if point is None:
        x, y = s.x - s.x[:1], s.y - s.x[:1]
        point = ((mean(x) + mean(y)) / 2)[None, :]
        offset = jnp.sqrt(_rounding.tree_sum(jnp.square(point[0])))
    else:
        x, y, offset = s.x, s.y, jnp.zeros_like(s.x[0, 0])
    value = mean(norms(x - point)) + mean(norms(y - point))
    u = _rounding.unit_roundoff(s.x.dtype)
    slack = u * ((norm_error(d) + mean_error(max(n, m)) + 4) * value + 2.2 * offset)
    return _samples.upper_bound(s, value, slack + _underflow(s))


@compiled
def _radius(pair: Given, point: Any) -> jax.Array:
    if point is None:
        return radius(_samples.prepare(pair))
    x, y, *errors = _samples.as_matrices(pair, centre=False)
    point = jnp.asarray(point).reshape(1, -1).astype(x.dtype)
    together = jnp.concatenate([y, point])
    s = _samples.scaled(Given(x, together, *errors))
    return radius(s._replace(y=s.y[:-1]), s.y[-1:])


def pairing_upper_bound(x: Before, y: After) -> Scalar:
    """U3: ``W1 <= mean_i |x_i - y_i|``.

    Proof: the identity coupling is one. Attained when the pairing is optimal, as it is for
    every translation; `em_distance` finds out and proves it.

    Args:
        x: Before, (n, ...).
        y: After, (n, ...), in the same order.

    Returns:
        The bound.

    Raises:
        ValueError: If shapes do not match, or the samples are not paired.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(pairing_upper_bound(jnp.zeros((3, 4)), jnp.ones((3, 4)))), 4)
        2.0

    References:
        Derived here.
    """
    check_paired(x, y)
    return _pairing(given(x, y))


def check_paired(x: Any, y: Any) -> None:
    """As many samples on either side."""
    _samples.check_samples(x, y)
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            f"The pairing bound needs as many samples in x (={x.shape[0]}) as in y "
            f"(={y.shape[0]}); use `moment_upper_bound` or `radius_upper_bound`."
        )


def pairing(s: Samples, masses: jax.Array | None = None) -> jax.Array:
    """U3; with `masses`, positive numbers (n,) of sum 1, each rounded once, of weighted samples."""
    n, d = s.x.shape
    apart = norms(s.x - s.y)
    value = mean(apart) if masses is None else _rounding.tree_sum(masses * apart)
    units = norm_error(d) + mean_error(n) + (2 if masses is None else 4)
    # Samples at a distance that is not 0 differ; others may, by less than a square can hold.
    differ = (value > 0) | ~jnp.all(_rounding.same_rows(s.x, s.y))
    slack = units * _rounding.unit_roundoff(s.x.dtype) * value
    return _samples.upper_bound(s, value, slack + jnp.where(differ, _underflow(s), 0))


_pairing = compiled(lambda pair: pairing(_samples.prepare(pair)))


def _underflow(s: Samples) -> float:
    return _samples.underflow(s.x.shape[1], s.x.dtype)
