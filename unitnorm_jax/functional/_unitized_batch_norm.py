"""Unitized batch normalization as a pure function.

Why it looks as it does. The layer is bound by memory traffic, and written as its formula reads
(xhat, its norm, the output) it moves three times what batch normalization moves. But all that it
needs from x are first and second moments per (sample, channel); what follows is arithmetic on
small arrays and one affine map per (sample, channel): x is read as often as by batch
normalization, and x is all that the backward pass keeps (``_by_sample``). A dense input has one
position, so its moments would be as large as itself: there the norms are a pass of their own
(``_by_row``, also for unit="position").

The moments are taken about zero, in one pass, and checked: where the mean is so large that digits
were lost they are taken again about the mean, in a branch that does not run otherwise
(``_batch_statistics``). Two other forms lost: a shift by the running mean is read in every
reduction (a third slower on a CPU) and is no help on the first batches, when the running mean is
still 0; a shift taken from the batch costs another pass and a collective. bfloat16 inputs are not
checked. One pass is off by about 2^-23 mean^2 in a variance, ten times less than the rounding of
the inputs themselves, (2^-8 mean)^2 / 12. That error is added to the variance, and to the squares
in the norm, so that no result is larger than the formula allows: sqrt(M) for M values, 1 for a
norm.

On a TPU an operand of a branch that is needed again later cannot stay in on-chip memory, so a
checked input is kept in main memory. Sums about the mean of every (sample, channel) avoid that, and
the collective within the branch stays the only one more; but they too are a second pass over x,
which is then always made. A loop in place of the branch has x copied to another layout. And sums
taken again in the backward pass, from x, spare two small matrices per layer and cost more bytes.

On a CPU the sums that involve a product or a conversion are taken by slabs (``_folded_sums``):
XLA hands sums to a library that is slow at both.

GPUs have forms of their own (``by_piece``, ``by_block``): which runs where is one table, ``forms``.

Derivatives are custom only to say what autodiff cannot know: no gradient flows through the shift,
what is cheap is not kept but computed again, and sums are written such that XLA stores small
results rather than evaluating them for every element. Everything is built from custom JVPs, so
forward and reverse mode, ``vmap``, ``scan`` and ``remat`` compose.

All of it is one jitted function, inlined into the program that it is part of: called eagerly, it
is compiled once and dispatched as one.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from unitnorm_jax.functional._numerics import arguments, forms
from unitnorm_jax.functional._numerics.axes import check_layout
from unitnorm_jax.functional._numerics.batch_statistics import (
    BatchStats,
    Reduction,
    hashable_groups,
    update_stats,
)
from unitnorm_jax.functional._numerics.by_sample import normalize_with_statistics
from unitnorm_jax.functional._numerics.layout import Layout

Scalar = float | int | Float[Array, ""]


def unitized_batch_norm(
    x: Shaped[Array | np.ndarray, "..."],
    stats: BatchStats,
    alpha: Shaped[Array, "..."],
    scale: Shaped[Array, "..."] | None = None,
    bias: Shaped[Array, "..."] | None = None,
    *,
    use_running_average: bool,
    axis: int | Sequence[int] = -1,
    sample_axis: int | Sequence[int] | None = 0,
    momentum: Scalar = 0.99,
    epsilon: Scalar = 1e-5,
    dtype: Any = None,
    unit: str | float = "reference",
    bessel_correction: bool = False,
    axis_name: str | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    mask: Shaped[Array | np.ndarray, "..."] | None = None,
    use_fast_variance: bool = True,
) -> tuple[Float[Array, "..."], BatchStats]:
    r"""Batch normalization whose output is divided by its norm, mixed by ``alpha``.

    With n a sample, p one of its P positions (all axes but the samples' and the features'), c one
    of its C channels, and mean and variance over samples and positions::

        xhat = (x - mean_c) / sqrt(var_c + epsilon)
        s_n  = kappa * sum_c mean_p xhat^2
        y    = scale_c * xhat * (alpha_c / sqrt(s_n + epsilon) + 1 - alpha_c) + bias_c

    =============  ======  =====================================================================
    unit           kappa   s_n
    =============  ======  =====================================================================
    "reference"    1/P     the authors' layer: the mean over positions, divided by P once more
    "sample"       P       the squared norm of the sample: at alpha = 1 it becomes a unit vector
    "rms"          1/C     the mean square of the sample, whatever its number of positions
    a float kappa  kappa   the authors' image_size and scale_coe: 1 / (image_size * scale_coe)
    "position"     --      sum_c xhat^2 for every position on its own
    =============  ======  =====================================================================

    At ``alpha = 0`` it is batch normalization. Gradients flow through mean, var and s.

    With a mask, statistics are over the places where it is True, and so is s_n: P is then each
    channel's number of such places in the sample, so that a padded sample gives what it gives
    without padding. Other places are normalized too; where they are not finite, or more than 10,000
    standard deviations (128 for a result in float16) from the mean, the mean stands in for them:
    results are bounded there, and nothing that stands there reaches the rest or any gradient.

    What is not finite shows: a NaN makes its channel NaN, as in ``flax.linen.BatchNorm``, and the
    running statistics; and the samples whose norm it enters, where alpha is not 0. Sums that
    overflow are taken about the mean, and where that is no help give NaN.

    Args:
        x: input, of rank >= 2 (>= 1 if ``sample_axis`` is None); integers and booleans are taken as
            float32. It may have no channels and, at inference, no samples or positions.
        stats: running statistics; ``mean`` and ``var`` have the shape of the feature axes
            (ascending). Their dtype is kept.
        alpha: mixing coefficients, of that shape.
        scale: scales, of that shape (default: 1).
        bias: biases, of that shape (default: 0).
        use_running_average: normalize with ``stats`` (inference), not with the batch's statistics.
        axis: the feature axis or axes.
        sample_axis: the sample axis. Several: each of their places is a sample, say each step of a
            sequence by (0, 1). None: x is one sample, under ``vmap(axis_name=...)``; it cannot be
            told from a batch, (H, W, C) from (N, L, C), so it must be said.
        momentum: decay rate of the running statistics: new = momentum * old + (1 - momentum) *
            batch. May be traced, as may epsilon.
        epsilon: added to the variance and to the squared norm.
        dtype: dtype of the result (default: that of x, scale and bias together). The arithmetic is
            in float32 at least.
        unit: see the table.
        bessel_correction: multiply the batch's variance by M / (M - (1 + epsilon)), for M values
            per channel, wherever it is used: the authors' code. (Default: the biased variance.)
        axis_name: mapped axis (``pmap``, ``shard_map``, ``vmap``) over whose devices statistics are
            taken: sums and counts are added, in one collective.
        axis_index_groups: groups of indices within that axis, to share statistics in groups; of any
            sizes.
        mask: True (or an integer other than 0) where a value takes part; broadcastable to x.
        use_fast_variance: one pass over x, and a second only where it would lose digits. False:
            always two.

    Returns:
        The normalized input, and the updated running statistics (``stats`` itself at inference).

    Raises:
        ValueError: an argument is out of its range, or shapes do not fit.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from unitnorm_jax.functional import BatchStats, unitized_batch_norm
        >>> x = 3 + jax.random.normal(jax.random.key(0), (8, 4, 4, 6))
        >>> stats = BatchStats(mean=jnp.zeros(6), var=jnp.ones(6))
        >>> y, stats = unitized_batch_norm(
        ...     x, stats, alpha=jnp.ones(6), use_running_average=False, unit="sample")
        >>> norms = jnp.sqrt(jnp.square(y).sum((1, 2, 3)))
        >>> bool(jnp.allclose(norms, 1, atol=1e-5))
        True

    References:
        You Huang and Yuanlong Yu, `An Internal Covariate Shift Bounding Algorithm for Deep Neural
        Networks by Unitizing Layers' Outputs`, CVPR 2020. The units other than "reference", masks
        and the statement with kappa are derived here.
    """
    unit = arguments.check_unit(unit)
    arguments.check_hyperparameters(momentum, epsilon)
    x = jnp.asarray(x)
    samples, features = check_layout(x.shape, axis, sample_axis)
    shape = tuple(x.shape[i] for i in features)
    for name, value in (("mean", stats.mean), ("var", stats.var), ("alpha", alpha)):
        arguments.check_features(name, value, shape)
    given = {"scale": scale, "bias": bias}
    for name, parameter in given.items():
        if parameter is not None:
            arguments.check_features(name, parameter, shape)
    result_dtype, compute_dtype = arguments.resolve_dtypes(x, given.values(), dtype)
    x = arguments.as_floating(x, empty=use_running_average or 0 in shape)
    if not use_running_average and axis_name is None and len(features) == x.ndim:
        raise ValueError(
            f"`sample_axis` (=None) says that the input of shape {x.shape} is one sample, so there "
            "is one value per channel, and no batch to take statistics of. Map the call with "
            "jax.vmap(..., axis_name='batch') and give that name as `axis_name`."
        )
    if 0 in shape:  # no channels: nothing to normalize
        return x.astype(result_dtype), stats
    config = _Config(
        features=features,
        samples=samples,
        unit=unit,
        bessel_correction=bessel_correction,
        result_dtype=result_dtype,
        compute_dtype=compute_dtype,
        reduction=None
        if use_running_average
        else Reduction(
            axis_name=axis_name,
            axis_index_groups=hashable_groups(axis_index_groups),
            guarded=x.dtype != jnp.bfloat16,
            two_pass=not use_fast_variance,
        ),
    )
    mask = None if mask is None else arguments.check_mask(mask, x.shape)
    decay = arguments.weak(momentum), arguments.weak(1 - momentum)
    epsilon = arguments.weak(epsilon)
    return _normalize(config, x, stats, alpha, scale, bias, mask, decay, epsilon)


class _Config(NamedTuple):
    """What the program depends on besides its arrays; no reduction: inference."""

    features: tuple[int, ...]
    samples: tuple[int, ...]
    unit: str | float
    bessel_correction: bool
    result_dtype: Any
    compute_dtype: Any
    reduction: Reduction | None


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _normalize(
    config: _Config,
    x: jax.Array,
    stats: BatchStats,
    alpha: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    mask: jax.Array | None,
    decay: tuple[Any, Any],
    epsilon: Any,
) -> tuple[jax.Array, BatchStats]:
    # Axes in the order of samples, positions, features, as they usually are.
    samples, features, unit = config.samples, config.features, config.unit
    positions = tuple(i for i in range(x.ndim) if i not in (*samples, *features))
    order = (*samples, *positions, *features)
    channels = math.prod(x.shape[i] for i in features)
    first = x.ndim - len(features)
    layout = Layout(
        tuple(x.shape[i] for i in order),
        tuple(range(first if unit == "position" else len(samples))),
        tuple(range(first, x.ndim)),
    )
    x, mask = x.transpose(order), None if mask is None else mask.transpose(order)

    def flat(value: jax.Array | None, default: float) -> jax.Array:
        if value is None:
            return jnp.full(channels, default, config.compute_dtype)
        return value.reshape(channels).astype(config.compute_dtype)

    parameters = flat(scale, 1.0), flat(bias, 0.0), flat(alpha, 0.0)
    if config.reduction is None:
        mean, var = flat(stats.mean, 0.0), flat(stats.var, 1.0)
        options: dict[str, Any] = {"layout": layout, "unit": unit, "dtype": config.result_dtype}
        y = normalize_with_statistics(x, mask, *parameters, mean, var, epsilon=epsilon, **options)
    else:
        y, mean, var, count = forms.normalize(
            x,
            mask,
            *parameters,
            layout=layout,
            unit=unit,
            reduction=config.reduction,
            dtype=config.result_dtype,
            epsilon=epsilon,
            bessel_correction=config.bessel_correction,
        )
        stats = update_stats(stats, mean, var, count, decay)
    inverse = tuple(order.index(i) for i in range(len(order)))
    return y.astype(config.result_dtype).transpose(inverse), stats
