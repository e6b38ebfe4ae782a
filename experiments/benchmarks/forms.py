"""What the layer is compared with, each as ``f(variables, x) -> (y, updated variables)``."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from unitnorm_jax.linen import UnitizedBatchNorm

Form = Callable[[Any, jax.Array], tuple[jax.Array, Any]]
_EPSILON, _MOMENTUM = 1e-5, 0.99


def _module(layer: Callable[..., nn.Module]) -> Form:
    def apply(variables: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        module = layer(
            use_running_average=False, momentum=_MOMENTUM, epsilon=_EPSILON, dtype=x.dtype
        )
        params = dict(variables["params"])
        if layer is nn.BatchNorm:
            del params["alpha"]
        return module.apply({**variables, "params": params}, x, mutable=["batch_stats"])

    return apply


def naive(variables: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    """Return the layer as its formula reads, unit="reference": what one would write first."""
    params, stats = variables["params"], variables["batch_stats"]
    reduced = tuple(range(x.ndim - 1))
    z = x.astype(jnp.float32)
    mean = z.mean(reduced)
    var = jnp.square(z - mean).mean(reduced)
    xhat = (z - mean) * lax.rsqrt(var + _EPSILON)
    positions = x[0, ..., 0].size
    square = jnp.square(xhat).sum(range(1, x.ndim), keepdims=True) / positions**2
    mixed = params["alpha"] * lax.rsqrt(square + _EPSILON) + 1 - params["alpha"]
    y = params["scale"] * xhat * mixed + params["bias"]
    new = {"mean": mean, "var": var}
    updated = jax.tree.map(lambda a, b: _MOMENTUM * a + (1 - _MOMENTUM) * b, stats, new)
    return y.astype(x.dtype), {"batch_stats": updated}


def affine(variables: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    """Return ``a x + b``: the memory traffic no layer can do without."""
    params = variables["params"]
    return (params["scale"] * x + params["bias"]).astype(x.dtype), {}


FORMS: dict[str, Form] = {
    "BatchNorm": _module(nn.BatchNorm),
    "UnitizedBatchNorm": _module(UnitizedBatchNorm),
    "naive": naive,
    "a x + b": affine,
}


def variables_for(channels: int, key: jax.Array) -> dict[str, dict[str, jax.Array]]:
    """Variables of a layer that has been trained a little, alpha in [0, 1]."""
    keys = jax.random.split(key, 4)
    return {
        "params": {
            "scale": 1 + 0.1 * jax.random.normal(keys[0], (channels,)),
            "bias": 0.1 * jax.random.normal(keys[1], (channels,)),
            "alpha": jax.random.uniform(keys[2], (channels,)),
        },
        "batch_stats": {
            "mean": 0.05 * jax.random.normal(keys[3], (channels,)),
            "var": jnp.ones(channels),
        },
    }


def forward(form: Form) -> Callable[..., Any]:
    """``(variables, x, dy) -> y`` and the updated statistics."""

    def run(variables: Any, x: jax.Array, dy: jax.Array) -> Any:
        del dy
        y, updated = form(variables, x)
        return (y,), updated

    return run


def forward_backward(form: Form) -> Callable[..., Any]:
    """``(variables, x, dy) -> (y, dx)``, the updated statistics and the parameters' gradients."""

    def run(variables: Any, x: jax.Array, dy: jax.Array) -> Any:
        def apply(params: Any, x: jax.Array) -> Any:
            return form({**variables, "params": params}, x)

        y, vjp, updated = jax.vjp(apply, variables["params"], x, has_aux=True)
        dparams, dx = vjp(dy)
        return (y, dx), (updated, dparams)

    return run


PASSES = {"forward": forward, "forward+backward": forward_backward}
