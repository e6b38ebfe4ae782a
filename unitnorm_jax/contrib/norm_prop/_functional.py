"""Normalization propagation: unit filters, and constants in place of statistics."""

import functools
import math
import numbers
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from unitnorm_jax.functional._numerics import arguments
from unitnorm_jax.functional._numerics.arguments import is_within
from unitnorm_jax.functional._numerics.axes import filter_axes
from unitnorm_jax.functional._numerics.scaling import power_of_two

# Mean and standard deviation of f(Z) and root mean square of f'(Z), for a standard normal Z.
_RELU = math.sqrt(0.5 / math.pi), math.sqrt(0.5 * (1 - 1 / math.pi)), math.sqrt(0.5)
_SIGMOID = 0.5, 0.20827634493166275, 0.21174569972066581
_ACTIVATIONS: dict[str | None, tuple[Callable[[Array], Array], tuple[float, float, float]]] = {
    "relu": (jax.nn.relu, _RELU),
    "sigmoid": (jax.nn.sigmoid, _SIGMOID),
    None: (lambda z: z, (0.0, 1.0, 1.0)),
}


def norm_prop_kernel(
    kernel: Float[Array, "..."],
    scale: Float[Array, "..."] | None = None,
    *,
    epsilon: float = 1e-12,
    feature_axes: int | Sequence[int] = -1,
) -> Float[Array, "..."]:
    r"""Divide every filter by its Euclidean norm, inside the differentiated graph.

    ::

        w_f <- scale_f * w_f / sqrt(|w_f|^2 + epsilon)

    With inputs of zero mean, unit variance and little correlation the outputs have zero mean and
    variance scale^2, whatever the weights: this is what replaces the statistics of a batch. The
    gradient with respect to a filter is orthogonal to it.

    The norm per filter (for a convolution over kernel positions and input channels) is the paper's;
    epsilon, for a filter of zeros, is this library's. Scale multiplies the kernel rather than the
    output, which is the same and cheaper.

    Args:
        kernel: (..., features), as Flax's kernels are.
        scale: (features,); None for 1.
        epsilon: added to the squared norm.
        feature_axes: the axis or axes of the outputs.

    Returns:
        The kernel to use, of the same shape and dtype; half precision is computed in float32.

    Raises:
        ValueError: an argument is out of its range, or shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> norm_prop_kernel(jnp.array([[3.0, 0.0], [4.0, 2.0]]))
        Array([[0.6, 0. ],
               [0.8, 1. ]], dtype=float32)

    References:
        Devansh Arpit, Yingbo Zhou, Bhargava Kota and Venu Govindaraju, `Normalization Propagation:
        A Parametric Technique for Removing Internal Covariate Shift in Deep Networks
        <https://arxiv.org/abs/1603.01431>`_, ICML 2016.
    """
    arguments.check_epsilon(epsilon)
    kernel = arguments.as_floating(kernel)
    reduced = filter_axes(kernel.shape, feature_axes)
    w = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
    if epsilon < jnp.finfo(w.dtype).tiny:
        epsilon = 0.0  # as it would be beside the squared norm
    # In units of the largest weight squares neither overflow nor underflow.
    most = 2.0 ** -math.ceil(0.5 * math.log2(epsilon)) if epsilon > 0 else math.inf
    factor = power_of_two(jnp.abs(w).max(reduced, keepdims=True), most)
    w = w * factor
    squared_norm = jnp.square(w).sum(reduced, keepdims=True) + epsilon * factor * factor
    # Without epsilon, a filter of zeros is 0 rather than 0/0; compared by ==, for NaN to stay.
    slope = lax.rsqrt(jnp.where(squared_norm == 0, 1, squared_norm))
    if scale is not None:
        features = tuple(s for i, s in enumerate(kernel.shape) if i not in reduced)
        arguments.check_features("scale", scale, features)
        slope = slope * scale.astype(w.dtype).reshape(slope.shape)
    return (w * slope).astype(kernel.dtype)


def norm_prop_activation(
    z: Float[Array, "..."], activation: str | None = "relu"
) -> Float[Array, "..."]:
    r"""Return the activation of a standard normal variable, with zero mean and unit variance.

    ::

        (f(z) - E f(Z)) / std f(Z),   Z ~ N(0, 1)

    ==========  ==========  ============  ===========================================
    activation  E f(Z)      std f(Z)      gain: rms of f'(Z) / std f(Z)
    ==========  ==========  ============  ===========================================
    "relu"      0.398942    0.583819      1.211174, the paper's 1.21
    "sigmoid"   0.5         0.208276      1.016657
    None        0           1             1
    ==========  ==========  ============  ===========================================

    The constants of ReLU are the paper's, sqrt(1 / (2 pi)) and sqrt((1 - 1 / pi) / 2); those of the
    sigmoid are derived here, by quadrature. They do not follow the scale and bias before them.

    Args:
        z: pre-activations.
        activation: "relu", "sigmoid" or None.

    Returns:
        An array of the same shape and dtype.

    Raises:
        ValueError: the activation is unknown.

    Example:
        >>> import jax
        >>> o = norm_prop_activation(jax.random.normal(jax.random.key(0), (100_000,)))
        >>> print(f"{abs(o.mean()):.2f} {o.std():.2f}")
        0.00 1.00
    """
    function, (mean, std, _) = _moments(activation)
    return (function(z) - mean) / std


def norm_prop_gain(activation: str | None = "relu") -> float:
    r"""Root mean square singular value of the Jacobian of a layer with scale 1 and bias 0.

    For orthonormal filters W and z = W x with standard normal z, the Jacobian of
    ``norm_prop_activation(z)`` is ``diag(f'(z)) W / std f(Z)``, so that ``E[J J'] = gain^2 I``.
    Scales start at 1 / gain, which makes it 1. It is an average: with ReLU the single singular
    values are 0 or 1.71, and a scale below 1 shrinks the variance of what follows (the standard
    deviation of the outputs is then 0.83 and their mean -0.12: the constants stay).

    Args:
        activation: "relu" (1.2112), "sigmoid" (1.0167) or None (1).

    Returns:
        The gain.

    Raises:
        ValueError: the activation is unknown.

    Example:
        >>> f"{norm_prop_gain():.4f}"
        '1.2112'
    """
    _, (_, std, slope) = _moments(activation)
    return slope / std


def max_pool_moments(count: int) -> tuple[float, float]:
    r"""Mean and standard deviation of the largest of ``count`` standard normal variables.

    To normalize max-pooling; average pooling has mean 0 and standard deviation 1 / sqrt(count).
    Both hold for independent inputs, which neighbouring positions are not. That pooling is
    normalized at all is taken from a third-party note on the paper.

    Args:
        count: number of values in the window.

    Returns:
        Mean and standard deviation, by quadrature of the density count * phi * Phi^(count - 1).

    Raises:
        ValueError: the count is not a positive integer.

    Example:
        >>> print(", ".join(f"{value:.4f}" for value in max_pool_moments(4)))  # 2x2
        1.0294, 0.7012
    """
    if isinstance(count, bool) or not isinstance(count, numbers.Integral) or count < 1:
        raise ValueError(f"`count` (={count}) must be a positive integer: the window's values.")
    # The trapezoidal rule is exact to rounding for a smooth density that vanishes at both ends.
    z = np.linspace(-12, 12, 4801)
    # By the logarithm of Phi: Phi itself rounds to 1 where the largest of many values lies.
    above = np.array([0.5 * math.erfc(a / math.sqrt(2)) for a in z])
    below = np.array([0.5 * math.erfc(-a / math.sqrt(2)) for a in z])
    logarithm = np.where(z > 0, np.log1p(-np.minimum(above, 0.5)), np.log(below))
    exponent = float(count - 1) * logarithm - z**2 / 2
    density = np.exp(exponent - exponent.max())
    density /= density.sum()
    mean = float((density * z).sum())
    return mean, math.sqrt(float((density * (z - mean) ** 2).sum()))


def norm_prop_sum(*terms: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Return the sum of k terms over sqrt(k).

    Of unit variance, where the terms have that and no correlation. What a residual network needs,
    ``(x + branch(x)) / sqrt(2)``. Derived here; the paper has no residual networks. With a
    branch whose Jacobian has an rms singular value of 1 and random signs, that of the sum is 1 too.

    Args:
        *terms: arrays of the same shape.

    Returns:
        An array of that shape.

    Raises:
        ValueError: there is no term.

    Example:
        >>> import jax.numpy as jnp
        >>> norm_prop_sum(jnp.array([1.0, 2.0]), jnp.array([1.0, -2.0]))
        Array([1.4142135, 0.       ], dtype=float32)
    """
    if not terms:
        raise ValueError("`terms` is empty: give the arrays to add.")
    return functools.reduce(jnp.add, terms) / math.sqrt(len(terms))


def covariance_bound(
    kernel: Float[Array, "..."],
    variance: float | int = 1.0,
    *,
    feature_axes: int | Sequence[int] = -1,
) -> Float[Array, ""]:
    r"""Return a bound of how far the outputs of a linear layer are from uncorrelated.

    For inputs of covariance ``variance * I`` the outputs' covariance is S = variance * W' W, with
    the filters w_i as columns of W. With mu the coherence, the largest |cosine| between two of
    them::

        |S - diag S|_F^2 = variance^2 * sum_{i != j} (w_i . w_j)^2
                        <= variance^2 * mu^2 * sum_{i != j} |w_i|^2 |w_j|^2

    The statement is derived here. The paper's has, according to a third-party note, |w_i|^2 where
    |w_i|^4 is due.

    Args:
        kernel: (..., features).
        variance: of each input.
        feature_axes: the axis or axes of the outputs.

    Returns:
        The bound of the Frobenius norm |S - diag S|_F, its square root.

    Raises:
        ValueError: the variance is negative, or the axes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> covariance_bound(jnp.array([[2.0, 0.0], [0.0, 3.0]]))  # orthogonal filters
        Array(0., dtype=float32)
    """
    if not is_within(variance, 0):
        raise ValueError(f"`variance` (={variance!r}) must be finite and not negative.")
    reduced = filter_axes(kernel.shape, feature_axes)
    last = tuple(range(-len(reduced), 0))
    w = jnp.moveaxis(kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32)), reduced, last)
    filters = w.reshape(-1, math.prod(w.shape[i] for i in last))  # (features, weights)
    gram = jnp.dot(filters, filters.T, precision=lax.Precision.HIGHEST)
    squares = jnp.diagonal(gram)
    products = squares[:, None] * squares[None]
    off_diagonal = ~jnp.eye(len(gram), dtype=bool)
    none = products == 0  # not `> 0`: a filter that is not a number has no bound
    cosine2 = jnp.where(none, 0, jnp.square(gram) / jnp.where(none, 1, products))
    mu2 = jnp.max(cosine2, where=off_diagonal, initial=0)
    return variance * jnp.sqrt(mu2 * jnp.sum(products, where=off_diagonal))


def _moments(
    activation: str | None,
) -> tuple[Callable[[Array], Array], tuple[float, float, float]]:
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"`activation` (={activation!r}) must be one of "
            f"{', '.join(map(repr, _ACTIVATIONS))}: others have no constants here."
        )
    return _ACTIVATIONS[activation]
