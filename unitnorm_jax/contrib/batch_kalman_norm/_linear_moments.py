"""Moments of the output of a linear layer, its borders included.

Exact for independent inputs at the cost of one pixel's convolution, where a draw of the input
(``sampled_moments``, the authors' way) costs that of an image and is noisy.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from unitnorm_jax.contrib.batch_kalman_norm._moments import Moments


def linear_moments(
    moments: Moments,
    kernel: Float[Array, "..."],
    bias: Float[Array, " c"] | None = None,
    *,
    spatial_shape: Sequence[int] = (),
    strides: int | Sequence[int] = 1,
    padding: str | Sequence[tuple[int, int]] = "SAME",
) -> Moments:
    r"""Moments of the output of a convolution or dense layer whose inputs are independent.

    Over all positions of the output, with t the taps of the kernel and [t in] whether a tap lies
    inside the image (outside are zeros)::

        mean = sum_t P[t in] W_t mean_in + bias
        var  = sum_t P[t in] W_t^2 var_in + Var_positions(sum_t [t in] W_t mean_in)

    Without padding, and for dense layers, this is mean = sum W mean_in + bias, var = sum W^2
    var_in. Only the border decides about the rest, and it is known from the shapes: nothing the
    size of an image is computed.

    Args:
        moments: of the inputs, (slices, c_in).
        kernel: (*window, c_in, c_out); (c_in, c_out) is dense.
        bias: (c_out,), or None.
        spatial_shape: height, width, ... of the input, pixels; one number per axis of the window.
        strides: strides, pixels; one number for all axes or one per axis.
        padding: "SAME", "VALID", or a (low, high) pair per axis, pixels.

    Returns:
        Moments of the outputs, (slices, c_out).

    Raises:
        ValueError: shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from unitnorm_jax.contrib.batch_kalman_norm import Moments, linear_moments
        >>> moments = Moments(mean=jnp.ones((1, 2)), var=jnp.ones((1, 2)))
        >>> mean, var = linear_moments(moments, jnp.array([[1.0], [3.0]]))
        >>> float(mean[0, 0]), float(var[0, 0])
        (4.0, 10.0)

    References:
        Derived here, as the deterministic form of the prediction of Kalman Normalization,
        https://arxiv.org/abs/1802.03133; for interior pixels it is the one above for "VALID".
    """
    window, (c_in, c_out) = kernel.shape[:-2], kernel.shape[-2:]
    if moments.mean.shape[-1:] != (c_in,) or moments.var.shape != moments.mean.shape:
        raise ValueError(
            f"`moments` of shapes {moments.mean.shape} and {moments.var.shape} must both be "
            f"(slices, c_in), with c_in = {c_in} for the kernel of shape {kernel.shape}."
        )
    if len(spatial_shape) != len(window):
        raise ValueError(
            f"`spatial_shape` (={tuple(spatial_shape)}) must have one number for each axis of the "
            f"window {window} of the kernel: the height, width, ... of the layer's input."
        )
    patterns = _patterns(
        tuple(spatial_shape),
        window,
        (strides,) * len(window) if isinstance(strides, int) else tuple(strides),
        padding if isinstance(padding, str) else tuple(map(tuple, padding)),
    )
    result_dtype = moments.mean.dtype
    dtype = jnp.promote_types(result_dtype, jnp.float32)
    moments = Moments(*(m.astype(dtype) for m in moments))
    taps = kernel.reshape(-1, c_in, c_out).astype(dtype)
    weights = jnp.asarray(patterns, dtype)
    einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    combined = einsum("rt,tcd->rcd", weights, taps)
    mean, *spreads = einsum("sc,rcd->rsd", moments.mean, combined)
    var = einsum("sc,t,tcd->sd", moments.var, weights[0], jnp.square(taps))
    var += sum(jnp.square(spread) for spread in spreads)
    mean = mean if bias is None else mean + bias.astype(dtype)[None]
    return Moments(mean.astype(result_dtype), var.astype(result_dtype))


def _patterns(
    spatial_shape: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    padding: str | tuple[tuple[int, ...], ...],
) -> np.ndarray:
    """Return combinations of taps, (r, t), that hold what the border does.

    The first is the share of the output's positions at which each tap lies inside; the squares of
    the others add to the covariance, over positions, of lying inside.
    """
    pads: tuple[Any, ...] = tuple(padding)
    if isinstance(padding, str):
        pads = tuple(lax.padtype_to_pads(spatial_shape, window, strides, padding.upper()))
    if not len(strides) == len(window) == len(pads):
        raise ValueError(
            f"`strides` (={strides}) and `padding` (={padding!r}) must have one entry for each "
            f"axis of the window {window}."
        )
    shares: np.ndarray = np.ones(1)
    joint: np.ndarray = np.ones((1, 1))
    for size, taps, stride, (low, high) in zip(spatial_shape, window, strides, pads, strict=True):
        outputs = (size + low + high - taps) // stride + 1
        if outputs < 1:
            raise ValueError(
                f"A kernel of window {window} has no output on an image of shape "
                f"{spatial_shape} with padding {padding!r}."
            )
        at = np.arange(outputs) * stride - low + np.arange(taps)[:, None]  # (taps, outputs)
        here = ((at >= 0) & (at < size)).astype(np.float64)
        # Axes are independent: shares and products of shares multiply.
        shares = np.kron(shares, here.mean(1))
        joint = np.kron(joint, here @ here.T / outputs)
    values, vectors = np.linalg.eigh(joint - np.outer(shares, shares))
    kept = values > 1e-12
    return np.concatenate([shares[None], (vectors[:, kept] * np.sqrt(values[kept])).T])
