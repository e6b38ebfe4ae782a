"""Batch statistics of masked inputs, with another number of valid values on every device."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.config.parallel import DevicesConfig
from experiments.training.parallel import make_transform
from experiments.training.parallel.transform import GROUP
from unitnorm_jax.linen import UnitizedBatchNorm

_random = np.random.default_rng(1)
X = np.float32(_random.normal(size=(32, 5, 3)) * 2 + 1)
# Of the 4 samples of each device 0, 1, ... 4 positions of each are valid, on the last device none.
_VALID = np.repeat([5, 1, 2, 3, 4, 5, 1, 0], 4)
MASK = np.arange(5)[None, :, None] < _VALID[:, None, None]
LAYERS: dict[str, type[nn.Module]] = {"bn": nn.BatchNorm, "ubn": UnitizedBatchNorm}


def statistics(mode: str, norm: str = "ubn", num_devices: int | None = None) -> Any:
    """Running statistics after one batch, and the sum of squares of the valid outputs.

    Masked values are not finite: they must not matter.
    """
    transform = make_transform(DevicesConfig(parallel=mode, num_devices=num_devices))
    layer = LAYERS[norm](momentum=0.0, **transform.axes)
    ones = {"scale": jnp.ones(3), "bias": jnp.zeros(3), "alpha": jnp.full(3, 0.5)}
    params = {name: value for name, value in ones.items() if norm == "ubn" or name != "alpha"}
    state = {"params": params, "batch_stats": {"mean": jnp.zeros(3), "var": jnp.ones(3)}}

    def step(state: Any, batch: Any, axis_name: Any) -> Any:
        y, updated = layer.apply(
            state,
            batch["x"],
            use_running_average=False,
            mask=batch["mask"],
            mutable=["batch_stats"],
        )
        total = jnp.sum(jnp.square(jnp.where(batch["mask"], y, 0)))
        if axis_name is not None:
            total = jax.lax.psum(total, axis_name)
            # The members of the one group agree already.
            updated = jax.lax.pmean(updated, GROUP if mode == "shard_map" else axis_name)
        return {**updated, "squares": total}

    x = np.where(MASK, X, np.nan if norm == "ubn" else 1e3)
    batch = {"x": x, "mask": np.broadcast_to(MASK, X.shape)}
    return jax.device_get(transform.eval_step(step, len(X))(state, batch))


def reference() -> Any:
    """The same statistics from the valid values alone, in float64."""
    valid = X.astype(np.float64)[np.broadcast_to(MASK, X.shape)].reshape(-1, 3)
    return {"mean": valid.mean(0), "var": valid.var(0)}
