"""Batch statistics of groups of two devices, i and i + 4: of two processes, or of one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from unitnorm_jax.linen import UnitizedBatchNorm

DEVICES = 8
_random = np.random.default_rng(2)
# Each device has a mean and spread of its own, so that it shows who shares statistics.
_scale = np.linspace(0.5, 3, DEVICES)[:, None, None, None]
X = np.float32(_random.normal(size=(DEVICES, 4, 5, 3)) * _scale + _scale)
WEIGHT = np.float32(_random.normal(size=X.shape))
GROUPS = [[i, i + 4] for i in range(4)]


def _layer(axes: dict[str, Any], x: jax.Array, weight: jax.Array) -> dict[str, Any]:
    """Running statistics after one batch, outputs, and their gradient with respect to all inputs.

    The gradient is of the sum of ``weight`` times the output over the whole group.
    """
    layer = UnitizedBatchNorm(momentum=0.0, use_running_average=False, **axes)
    params = {"scale": jnp.ones(3), "bias": jnp.zeros(3), "alpha": jnp.full(3, 0.5)}
    stats = {"mean": jnp.zeros(3), "var": jnp.ones(3)}

    def apply(x: jax.Array) -> Any:
        return layer.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])

    y, pull, updated = jax.vjp(apply, x, has_aux=True)
    return {"y": y, "gradient": pull(weight)[0], **updated["batch_stats"]}


def statistics(mode: str) -> dict[str, np.ndarray]:
    """What the devices of this process compute, one entry for each of them."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    local = [i for i, d in enumerate(devices) if d.process_index == jax.process_index()]
    if mode == "pmap":
        axes: dict[str, Any] = {"axis_name": "i", "axis_index_groups": GROUPS}
        mapped = jax.pmap(lambda x, w: _layer(axes, x, w), "i", devices=devices)
        return jax.device_get(mapped(X[local], WEIGHT[local]))
    names = ("member", "group")
    mesh = Mesh(np.array(devices).reshape(2, 4), names, axis_types=(AxisType.Auto,) * 2)
    spec = PartitionSpec(names)

    def each(x: jax.Array, weight: jax.Array) -> dict[str, Any]:
        numbers = _layer({"axis_name": "member"}, x[0], weight[0])
        return jax.tree.map(lambda a: a[None], numbers)

    # Statistics are the same on the members of a group: no need to prove it.
    step = jax.jit(
        jax.shard_map(each, mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False)
    )
    sharding = NamedSharding(mesh, spec)
    parts = [jax.make_array_from_process_local_data(sharding, a[local]) for a in (X, WEIGHT)]
    found = step(*parts)

    def own(a: jax.Array) -> np.ndarray:
        shards = sorted(a.addressable_shards, key=lambda shard: shard.index[0].start)
        return np.concatenate([np.asarray(shard.data) for shard in shards])

    return jax.tree.map(own, found)


def reference() -> dict[str, np.ndarray]:
    """The same statistics from all values of each group, in float64, for each device."""
    group = np.concatenate([X[:4], X[4:]], axis=1).astype(np.float64).reshape(4, -1, 3)
    numbers = {"mean": group.mean(1), "var": group.var(1)}
    return {name: np.concatenate([value, value]) for name, value in numbers.items()}
