"""What analog hardware does to weights: pure functions ``(key, params) -> params``.

They compose with ``chain_noise``. One draw for all forward passes is a chip (static noise); a key
of its own for every pass, such as ``jax.random.fold_in(key, step)``, is noise that varies in time.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unitnorm_jax.functional._numerics.arguments import is_within
from unitnorm_jax.functional._numerics.scaling import power_of_two

Params = Any
Noise = Callable[[jax.Array, Params], Params]
Select = Callable[[tuple[str, ...]], bool]


def is_kernel(path: tuple[str, ...]) -> bool:
    """Return whether a parameter is a kernel: what an analog array holds; the rest is digital."""
    return path[-1] == "kernel"


def additive_noise(strength: jax.Array | float | int, *, select: Select = is_kernel) -> Noise:
    r"""Return normal noise in proportion to the range of each layer's weights.

        w + strength * (max w - min w) * N(0, 1)

    Args:
        strength: standard deviation, in units of the layer's range; may be traced.
        select: which parameters, by their path of names.

    Returns:
        The noise.

    Raises:
        ValueError: ``strength`` is negative; when called, if no parameter is selected.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import additive_noise
        >>> params = {"conv": {"kernel": jnp.linspace(-1, 1, 1000), "bias": jnp.ones(3)}}
        >>> noisy = additive_noise(0.1)(jax.random.key(0), params)
        >>> print(f"{jnp.std(noisy['conv']['kernel'] - params['conv']['kernel']):.1f}")
        0.2
        >>> bool(jnp.all(noisy["conv"]["bias"] == 1))
        True

    References:
        Usual in the study of analog inference; strengths of 0.02 to 0.15.
    """
    check_not_negative(strength=strength)

    def perturb(key: jax.Array, w: jax.Array) -> jax.Array:
        # Halves: the range may overflow where the weights do not.
        half_range = w.max() / 2 - w.min() / 2
        return w + 2 * strength * half_range * jax.random.normal(key, w.shape, w.dtype)

    return _on_selected(perturb, select)


def multiplicative_noise(strength: jax.Array | float | int, *, select: Select = is_kernel) -> Noise:
    """Return normal noise in proportion to each weight: ``w * (1 + strength * N(0, 1))``.

    Args:
        strength: relative standard deviation; may be traced.
        select: which parameters, by their path of names.

    Returns:
        The noise.

    Raises:
        ValueError: ``strength`` is negative; when called, if no parameter is selected.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import multiplicative_noise
        >>> params = {"kernel": jnp.array([0.0, 5.0])}
        >>> float(multiplicative_noise(0.1)(jax.random.key(0), params)["kernel"][0])
        0.0
    """
    check_not_negative(strength=strength)

    def perturb(key: jax.Array, w: jax.Array) -> jax.Array:
        return w * (1 + strength * jax.random.normal(key, w.shape, w.dtype))

    return _on_selected(perturb, select)


def drift_noise(
    time: jax.Array | float | int,
    *,
    exponent: float | int = 0.05,
    spread: float | int = 0.0,
    select: Select = is_kernel,
) -> Noise:
    r"""Decay of conductances: ``w * time^-nu`` with ``nu ~ N(exponent, spread^2)`` per weight.

    Args:
        time: since programming, in units of the time of the first read; at least 1; may be traced.
        exponent: mean of nu.
        spread: standard deviation of nu between weights; at 0 a layer only shrinks, which a
            normalization with its own statistics does not see.
        select: which parameters, by their path of names.

    Returns:
        The noise.

    Raises:
        ValueError: an argument is out of its range; when called, if no parameter is selected.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import drift_noise
        >>> noise = drift_noise(100.0, exponent=0.5)
        >>> noisy = noise(jax.random.key(0), {"kernel": jnp.array([3.0])})
        >>> print(f"{noisy['kernel'][0]:.4f}")
        0.3000
    """
    check_not_negative(exponent=exponent, spread=spread)
    if not is_within(time, 1):
        raise ValueError(
            f"`time` (={time!r}) must be finite and at least 1: it is in units of the time of the "
            "first read, when nothing has drifted yet."
        )

    def perturb(key: jax.Array, w: jax.Array) -> jax.Array:
        nu = exponent + spread * jax.random.normal(key, w.shape, w.dtype)
        # By Python where it can: a time may be finite and overflow w's dtype.
        traced = isinstance(time, jax.Array)
        logarithm = jnp.log(jnp.asarray(time, w.dtype)) if traced else math.log(time)
        return w * jnp.exp(-nu * logarithm)

    return _on_selected(perturb, select)


def quantization_noise(bits: jax.Array | float | int, *, select: Select = is_kernel) -> Noise:
    """Round to ``2^bits - 1`` equally spaced levels from -max|w| to max|w| of each layer.

    Args:
        bits: an integer of at least 2; may be traced (and is then rounded down). More bits than the
            dtype of the arithmetic has digits leave the weights as they are.
        select: which parameters, by their path of names.

    Returns:
        The noise; it is deterministic, so any key will do.

    Raises:
        ValueError: ``bits`` is no integer or less than 2; when called, if no parameter is selected.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import quantization_noise
        >>> params = {"kernel": jnp.array([-1.0, 0.1, 0.6])}
        >>> quantization_noise(2)(jax.random.key(0), params)["kernel"].tolist()
        [-1.0, 0.0, 1.0]
    """
    if not (is_within(bits, 2) and (isinstance(bits, jax.core.Tracer) or int(bits) == bits)):
        raise ValueError(
            f"`bits` (={bits!r}) must be at least 2, which gives the levels -1, 0, 1, and an "
            "integer: codes of other than whole bits have levels beyond the largest weight."
        )

    def perturb(key: jax.Array, w: jax.Array) -> jax.Array:
        del key
        digits = jnp.finfo(w.dtype).nmant + 1
        # Held to what the dtype holds, where rounding to levels changes nothing any more.
        used = jnp.clip(jnp.floor(jnp.asarray(bits, w.dtype)), 2, digits)
        levels = 2.0 ** (used - 1) - 1
        top = jnp.abs(w).max()
        factor = power_of_two(top)  # of the order of 1 no step underflows, no quotient either
        top = top * factor
        codes = jnp.round(w * factor / jnp.where(top == 0, 1, top) * levels)
        rounded = jnp.clip(codes / levels * top, -top, top)
        return jnp.where(bits > digits, w, rounded / factor)

    return _on_selected(perturb, select)


def chain_noise(*noises: Noise) -> Noise:
    """Return one noise after the other, each with a key of its own.

    Args:
        *noises: the first is applied first.

    Returns:
        The noise; with no arguments, none.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import additive_noise, chain_noise
        >>> from unitnorm_jax.contrib.noise_aware_batch_norm import quantization_noise
        >>> noise = chain_noise(quantization_noise(4), additive_noise(0.02))
        >>> noise(jax.random.key(0), {"kernel": jnp.ones((2, 3))})["kernel"].shape
        (2, 3)
    """
    for i, noise in enumerate(noises):
        if not callable(noise):
            raise ValueError(
                f"`noises[{i}]` (={noise!r}) must be a noise, such as `additive_noise(0.1)`."
            )

    def apply(key: jax.Array, params: Params) -> Params:
        for i, noise in enumerate(noises):
            params = noise(jax.random.fold_in(key, i), params)
        return params

    return apply


def check_not_negative(**values: Any) -> None:
    """Raise unless each value that is known at trace time is finite and not negative."""
    for name, value in values.items():
        if not is_within(value, 0):
            raise ValueError(f"`{name}` (={value!r}) must be finite and not negative.")


def _on_selected(perturb: Callable[[jax.Array, jax.Array], jax.Array], select: Select) -> Noise:
    """Apply ``perturb`` to each selected parameter, with a key of its own.

    In at least float32: half precision would overflow, and count levels badly.
    """

    def in_float32(key: jax.Array, path: str, leaf: Any) -> jax.Array:
        w = jnp.asarray(leaf)
        if not jnp.issubdtype(w.dtype, jnp.floating):
            raise ValueError(
                f"`select` chooses {path}, which is {w.dtype}: noise is for real floating-point "
                "weights. Convert it, or choose others."
            )
        wide = w.astype(jnp.promote_types(w.dtype, jnp.float32))
        return perturb(key, wide).astype(w.dtype)

    def apply(key: jax.Array, params: Params) -> Params:
        leaves, tree = jax.tree_util.tree_flatten_with_path(params)
        names = [_names(path) for path, _ in leaves]
        chosen = [select(name) for name in names]
        paths = ["/".join(name) for name in names]
        if not any(chosen):
            more = f" and {len(paths) - 10} more" if len(paths) > 10 else ""
            raise ValueError(
                "`select` chooses none of the parameters, so there is nothing to disturb; their "
                f"paths are {', '.join(paths[:10])}{more}. By default it chooses those named "
                "kernel."
            )
        out = [
            in_float32(jax.random.fold_in(key, i), paths[i], leaf) if wanted else leaf
            for i, ((_, leaf), wanted) in enumerate(zip(leaves, chosen, strict=True))
        ]
        return jax.tree.unflatten(tree, out)

    return apply


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """Return a parameter's path of names; a box around it (``nn.Partitioned``) is no part of it."""
    boxed = len(path) > 1 and getattr(path[-1], "name", None) == "value"
    return tuple(
        str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))
        for entry in (path[:-1] if boxed else path)
    )
