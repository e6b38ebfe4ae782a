"""A loss term that tightens the unitized bound."""

import math
import operator
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, SupportsIndex

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from unitnorm_jax._interception import intercepted
from unitnorm_jax.ics.bounds._unitized import Unit, unitized_upper_bound


def unitized_bound_penalty(
    params: Mapping[str, Any],
    positions: Mapping[str, SupportsIndex] | SupportsIndex = 1,
    *,
    unit: Unit = "reference",
    relative: bool = True,
) -> Float[Array, ""]:
    """Mean, over the layers with an alpha, of the bound on W1 between unitized outputs.

    ``mean_l  2 (R_l max_c |alpha_c| + sqrt(P_l C_l) max_c |1 - alpha_c|) / (2 sqrt(P_l C_l))``

    A term for the loss, ``loss + lambda * unitized_bound_penalty(params, positions)``: training
    alpha through the loss alone need not tighten the bound. It is `unitized_upper_bound` before
    scale and bias, for the same parameters on both sides of an update. Scale is left out because
    the next layer's weights can undo it: a penalty on it would shrink the outputs, and not the
    shift in units of their spread.

    Where R < sqrt(P C) (see `unit_radius`), as for "sample" and "position" with more than one
    channel, its smallest value, R / sqrt(P C), is at alpha = 1: it pulls there. Where R = sqrt(P C)
    ("rms") it is 1 for all alpha between 0 and 1: unitizing bounds nothing more tightly than
    batch statistics do on average, and there is no pull. For "reference" R = P: it pulls towards
    1 where P < C and towards 0 where P > C.

    Of each layer's channels, only the one furthest out has a gradient (all of them, where they are
    equal).

    Args:
        params: Parameters of a model, nested; a layer is a group with an ``alpha`` of shape (C,).
            Axes before the last are those of ``nn.scan`` or ``nn.vmap``: that many layers of C
            channels, each with its share of the mean. Boxes (``nn.with_partitioning``) are looked
            into.
        positions: P of each layer, by its path joined with "/"; one number if all have the same.
            `layer_positions` finds them.
        unit: As in the layers.
        relative: In units of the bound at alpha = 0, so that all layers weigh alike; False: in
            units of the output, where those with the most positions and channels weigh most.

    Returns:
        The mean; 0 if no layer has an alpha.

    Raises:
        ValueError: If the positions of a layer are missing.

    Example:
        >>> params = {"norm": {"alpha": jnp.zeros(16)}, "head": {"kernel": jnp.ones((2, 2))}}
        >>> unitized_bound_penalty(params, {"norm": 4}, unit="sample")
        Array(1., dtype=float32)
        >>> params["norm"]["alpha"] = jnp.ones(16)  # 1 / sqrt(4 * 16)
        >>> unitized_bound_penalty(params, {"norm": 4}, unit="sample")
        Array(0.125, dtype=float32)

    References:
        Derived here.
    """
    terms = []
    for (*path, name), alpha in flatten_dict(params).items():
        if name != "alpha":
            continue
        layer = "/".join(path)
        if isinstance(positions, Mapping) and layer not in positions:
            raise ValueError(
                f"`positions` has no entry for the layer {layer!r}; it has {sorted(positions)}. "
                "Give the number of positions of every layer with an alpha."
            )
        p = operator.index(positions[layer] if isinstance(positions, Mapping) else positions)
        (values,) = jax.tree.leaves(alpha)  # of a box too
        values = jnp.atleast_1d(values)
        channels = values.shape[-1]
        bound = partial(unitized_upper_bound, channels=channels, positions=p, unit=unit)
        bounds = jax.vmap(bound)(values.reshape(-1, channels))
        terms.append(bounds / (2 * (p * channels) ** 0.5) if relative else bounds)
    return jnp.mean(jnp.concatenate(terms)) if terms else jnp.zeros(())


def layer_positions(model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, int]:
    """Return the number of positions of every layer with an alpha; nothing is computed.

    Args:
        model: Any linen module; its layers are called with one array.
        *args: Of ``model.init``, behind the key: arrays, or shapes (``jax.ShapeDtypeStruct``).
        **kwargs: Of ``model.init``, for example ``train=False``.

    Returns:
        P by path, joined with "/": the product of all axes of the output but those of samples and
        features, 1 for a dense layer.

    Raises:
        ValueError: If a layer is called with different numbers of positions, or has several feature
            axes.

    Example:
        >>> import flax.linen as nn, jax
        >>> from unitnorm_jax.linen import UnitizedBatchNorm
        >>> model = nn.Sequential([nn.Conv(8, (3, 3)), UnitizedBatchNorm(use_running_average=True)])
        >>> layer_positions(model, jnp.zeros((2, 5, 7, 3)))
        {'layers_1': 35}
    """
    found: dict[str, int] = {}

    def see(next_fun, args, kwargs, context):
        y = next_fun(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__" and module.has_variable("params", "alpha"):
            (alpha,) = jax.tree.leaves(module.get_variable("params", "alpha"))
            if alpha.ndim > 1:
                raise ValueError(
                    f"The layer {'/'.join(module.path)!r} has several feature axes (alpha of shape "
                    f"{alpha.shape}), which `unitized_bound_penalty` would take for layers of "
                    "nn.scan. Give it that layer's alpha flattened, with positions by hand."
                )
            out = jax.tree.leaves(y)[0]  # of several arrays the first, which moments follow
            axes = getattr(module, "sample_axis", 0)  # None: each call has one sample
            axes = () if axes is None else axes if isinstance(axes, Sequence) else (axes,)
            samples = math.prod(out.shape[axis] for axis in axes)
            layer, p = "/".join(module.path), out.size // (samples * alpha.size)
            if found.setdefault(layer, p) != p:
                raise ValueError(
                    f"The layer {layer!r} is called with {found[layer]} and with {p} positions, "
                    "and has one entry; give `unitized_bound_penalty` the positions by hand: with "
                    "the larger number its bound in the output's unit holds for both."
                )
        return y

    with intercepted(see):
        jax.eval_shape(partial(model.init, **kwargs), jax.random.key(0), *args)
    return found
