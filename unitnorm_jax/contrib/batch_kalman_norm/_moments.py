"""Means and variances carried from layer to layer: predictions of Batch Kalman Normalization."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from unitnorm_jax.contrib.batch_kalman_norm._normal_tails import (
    MillsRatios,
    fourth_root_of_density,
    mills_ratios,
)
from unitnorm_jax.functional._numerics import arguments
from unitnorm_jax.functional._numerics.scaling import power_of_two


class Moments(NamedTuple):
    """Means and variances of the channels of each slice of a batch.

    Attributes:
        mean: (slices, channels).
        var: (slices, channels).
    """

    mean: Float[Array, "..."]
    var: Float[Array, "..."]


def normalized_moments(
    moments: Moments,
    scale: Float[Array, " c"] | None = None,
    bias: Float[Array, " c"] | None = None,
    *,
    epsilon: float | int = 1e-5,
) -> Moments:
    r"""Moments of ``scale * (x - mean) / sqrt(var + epsilon) + bias``, given those of x.

        mean' = bias,   var' = scale^2 var / (var + epsilon)

    Args:
        moments: mean and var, of x and in the formula, (slices, channels).
        scale: (channels,) (default: 1).
        bias: (channels,) (default: 0).
        epsilon: added to the variance.

    Returns:
        Moments of the normalized x, of the same shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.contrib.batch_kalman_norm import Moments, normalized_moments
        >>> moments = Moments(mean=jnp.full((1, 1), 7.0), var=jnp.full((1, 1), 9.0))
        >>> normalized_moments(moments, scale=jnp.array([2.0]), epsilon=0.0).var.tolist()
        [[4.0]]

    References:
        Derived here; the code of Kalman Normalization leaves this step out.
    """
    arguments.check_epsilon(epsilon)
    mean, var = jnp.zeros_like(moments.mean), moments.var / (moments.var + epsilon)
    if scale is not None:
        var = var * jnp.square(scale.astype(var.dtype))[None]
    if bias is not None:
        mean = mean + bias.astype(mean.dtype)[None]
    return Moments(mean, var)


def relu_moments(moments: Moments) -> Moments:
    r"""Moments of ``max(z, 0)`` for normal z.

    With a = mean / sqrt(var), Phi and phi the distribution function and density of N(0, 1)::

        E   = mean Phi(a) + sqrt(var) phi(a)
        Var = (mean^2 + var) Phi(a) + mean sqrt(var) phi(a) - E^2

    Evaluated such that neither loses digits where |a| is large, nor their derivatives. A variance
    of 0 is allowed.

    Args:
        moments: of z.

    Returns:
        Those of ``max(z, 0)``, of the same shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.contrib.batch_kalman_norm import Moments, relu_moments
        >>> mean, var = relu_moments(Moments(mean=jnp.zeros((1, 1)), var=jnp.ones((1, 1))))
        >>> print(f"{float(mean[0, 0]):.4f} {float(var[0, 0]):.4f}")
        0.3989 0.3408

    References:
        Moments of the rectified normal distribution; the stable form is derived here.
    """
    return Moments(
        *(
            out.astype(given.dtype)
            for out, given in zip(_relu_moments(*_wide(moments)), moments, strict=True)
        )
    )


class _Tail(NamedTuple):
    """What the moments of ``max(z, 0)`` are made of; see ``_normal_tails``."""

    std: jax.Array
    b: jax.Array  # |mean| / std, at most _LIMIT
    root: jax.Array  # its square times 1 / sqrt(2 pi) is the density phi(b)
    mills: MillsRatios


_LIMIT = 64.0  # beyond it exp(-b^2 / 4) is 0, in double precision as well
_DENSITY = 1 / math.sqrt(2 * math.pi)


def _tail(mean: jax.Array, var: jax.Array) -> _Tail:
    var = jnp.maximum(var, jnp.finfo(var.dtype).tiny)
    std = jnp.sqrt(var)
    factor = power_of_two(std)
    v, s = var * factor * factor, std * factor  # of the order of 1
    m = jnp.minimum(jnp.where(mean > 0, mean, -mean) * factor, _LIMIT * s)
    b = m / s
    return _Tail(std, b, fourth_root_of_density(m, v), mills_ratios(b))


@jax.custom_jvp
def _relu_moments(mean: jax.Array, var: jax.Array) -> tuple[jax.Array, jax.Array]:
    std, b, root, (_, first, second) = _tail(mean, var)
    positive = mean > 0
    # Not std * phi: the density alone underflows first.
    small = (std * root) * (_DENSITY * first) * root
    phi = _DENSITY * jnp.square(root)
    tail = jnp.square(std * root) * (_DENSITY * (second - phi * jnp.square(first)))
    # z = max(z, 0) - max(-z, 0), so that where mean > 0 the small part is taken off.
    bulk = var * (1 - phi * (second + 2 * b * first + phi * jnp.square(first)))
    return jnp.where(positive, mean, 0) + small, jnp.where(positive, bulk, tail)


@_relu_moments.defjvp
def _relu_moments_jvp(primals: Any, tangents: Any) -> Any:
    """From d E f(z) = E f'(z) dmean + E f''(z) dvar / 2, with f and f^2: no differences either."""
    (mean, var), (dmean, dvar) = primals, tangents
    expected, spread = _relu_moments(mean, var)
    std, b, root, (zeroth, first, _) = _tail(mean, var)
    positive = mean > 0
    phi = _DENSITY * jnp.square(root)
    tail = phi * zeroth  # of the smaller side
    above = jnp.where(positive, 1 - tail, tail)
    scaled = jnp.where(positive, b, 0) + phi * first  # expected / std
    dexpected = above * dmean + (root * _DENSITY / (2 * std)) * root * dvar
    small = (expected * root) * (_DENSITY * zeroth) * root  # the product underflows last
    below = jnp.where(positive, small, expected * (1 - tail))  # times expected
    dspread = 2 * below * dmean + (above - scaled * phi) * dvar
    return (expected, spread), (dexpected, dspread)


def _wide(moments: Moments) -> Moments:
    """Return the same in at least float32."""
    return Moments(*(m.astype(jnp.promote_types(m.dtype, jnp.float32)) for m in moments))


def sampled_moments(
    moments: Moments,
    noise: Float[Array, "..."],
    layer: Callable[[jax.Array], jax.Array],
) -> Moments:
    r"""Moments of a layer's output for one normal draw of its input: the authors' prediction.

        s = sqrt(var) * noise + mean;   moments over the positions of layer(s), per slice

    Unbiased only as the number of positions grows: it is one image per slice. The layer is the
    network's own, so its weights get gradients from the prediction too.

    Args:
        moments: of the input, (slices, c_in).
        noise: standard normal numbers, (slices, *positions, c_in), such as ``jax.random.normal(key,
            (slices, h, w, c_in))``.
        layer: maps (slices, *positions, c_in) to (slices, *positions, c_out): the activation and
            then the convolution, such as ``lambda s: conv(nn.relu(s))``.

    Returns:
        Moments of the outputs, (slices, c_out); the variance is the biased one.

    Raises:
        ValueError: shapes do not fit.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.batch_kalman_norm import Moments, sampled_moments
        >>> moments = Moments(mean=jnp.zeros((2, 3)), var=jnp.ones((2, 3)))
        >>> noise = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
        >>> sampled_moments(moments, noise, jax.nn.relu).mean.shape
        (2, 3)

    References:
        ``state_input`` in wanggrun/Kalman-Normalization, https://arxiv.org/abs/1802.03133.
    """
    rows, channels = moments.mean.shape
    if noise.ndim < 3 or (noise.shape[0], noise.shape[-1]) != (rows, channels):
        raise ValueError(
            f"`noise` of shape {noise.shape} must be (slices, *positions, channels), with "
            f"{rows} slices and {channels} channels as in `moments`, and some positions."
        )
    mean, var = (jnp.expand_dims(m, tuple(range(1, noise.ndim - 1))) for m in moments)
    constant = var == 0  # where the derivative of the root is not finite
    std = jnp.where(constant, 0, jnp.sqrt(jnp.where(constant, 1, var)))
    y = layer(std * noise + mean).astype(moments.mean.dtype)
    over = tuple(range(1, y.ndim - 1))
    return Moments(y.mean(over), y.var(over))


def add_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the sum of two independent inputs: those of a residual connection.

    Where ``a`` has fewer channels it is padded with zeros on both sides, like the shortcut
    without parameters that pads its channels. (The authors' code pads the flat, slice-major
    vector of all slices there, so that with several slices moments land on the wrong slices;
    with one slice it agrees.)

    Args:
        a: of the shortcut, (slices, c) with c <= channels and the difference even.
        b: of the branch, (slices, channels).

    Returns:
        The sums, (slices, channels).

    Raises:
        ValueError: shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.contrib.batch_kalman_norm import Moments, add_moments
        >>> a = Moments(mean=jnp.ones((1, 2)), var=jnp.ones((1, 2)))
        >>> b = Moments(mean=jnp.zeros((1, 4)), var=jnp.ones((1, 4)))
        >>> add_moments(a, b).var.tolist()
        [[1.0, 2.0, 2.0, 1.0]]

    References:
        ``residual`` in wanggrun/Kalman-Normalization, https://arxiv.org/abs/1802.03133.
    """
    missing = b.mean.shape[-1] - a.mean.shape[-1]
    if missing < 0 or missing % 2 or a.mean.shape[:-1] != b.mean.shape[:-1]:
        raise ValueError(
            f"Moments of shapes {a.mean.shape} (shortcut) and {b.mean.shape} (branch) cannot be "
            "added: they need the same slices, and the shortcut as many channels as the branch, "
            "or fewer by an even number."
        )
    pad = ((0, 0), (missing // 2, missing // 2))
    return Moments(*(jnp.pad(m, pad) + n for m, n in zip(a, b, strict=True)))
