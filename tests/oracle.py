"""The reference under `jax`: gradients in float64, and comparisons."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax.functional._numerics import reference


@functools.partial(jax.jit, static_argnames="config")
def _value_and_grads(params: Any, x: Any, mean: Any, var: Any, dy: Any, mask: Any, config: Any):
    def loss(params: Any, x: Any) -> Any:
        out = reference.unitized_batch_norm(
            x, mean, var, **params, mask=mask, **dict(config), xp=jnp
        )
        return jnp.sum(out.y * dy), out

    (_, out), grads = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)
    return out, grads[0] | {"x": grads[1]}


def value_and_grads(
    x: Any, mean: Any, var: Any, params: dict[str, Any], dy: Any, mask: Any = None, **config: Any
) -> tuple[reference.Result, dict[str, np.ndarray]]:
    """The reference's outputs and the gradients of ``sum(y * dy)``, in float64."""
    with jax.enable_x64(True):
        args = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (params, x, mean, var, dy))
        out = _value_and_grads(*args, mask, config=tuple(config.items()))
        return jax.tree.map(np.asarray, out)


def assert_close(
    actual: Any, desired: Any, tol: float, err_msg: str = "", size: float = 0.0
) -> None:
    """All finite, and within ``tol`` of the largest magnitude of ``desired`` (or ``size``)."""
    desired = np.asarray(desired, np.float64)
    atol = tol * np.max(np.abs(desired), initial=max(size, np.finfo(np.float32).tiny))
    actual = np.asarray(actual).astype(np.float64)
    assert actual.shape == desired.shape, (err_msg, actual.shape, desired.shape)
    assert np.isfinite(actual).all(), f"{err_msg}: not finite"
    np.testing.assert_allclose(actual, desired, rtol=0, atol=atol, err_msg=err_msg)
