"""The layer against ``nn.BatchNorm`` in the program the TPU compiler makes; no TPU is needed."""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.benchmarks.pod_check.collectives import collectives
from experiments.benchmarks.pod_check.topology import tpu_devices
from unitnorm_jax.linen import UnitizedBatchNorm


@dataclasses.dataclass(frozen=True)
class TpuRow:
    """What the compiler says of one program, per device."""

    layer: str
    dtype: str
    shape: tuple[int, ...]
    bytes_accessed: float
    flops: float
    collectives: dict[str, int]
    guarded_collectives: int
    peak_bytes: int
    compile_s: float


class _Network(nn.Module):
    """Convolution (of rows: Dense), normalization, ReLU, twice; and a convolution."""

    norm: Callable[..., nn.Module]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer: Any = nn.Dense if x.ndim == 2 else functools.partial(nn.Conv, kernel_size=(3, 3))
        layer = functools.partial(layer, x.shape[-1], use_bias=False, dtype=self.dtype)
        for _ in range(2):
            x = nn.relu(self.norm(use_running_average=False, dtype=self.dtype)(layer()(x)))
        return layer()(x)


def compile_for(topology: str, layer: str, dtype: str, shape: tuple[int, ...]) -> TpuRow:
    """Compile the gradient of a small network, its batch over all devices, and read the program.

    Args:
      topology: name of a TPU slice, for example "v5e:16x16".
      layer: "BatchNorm" or "UnitizedBatchNorm".
      dtype: of inputs and activations; parameters are float32.
      shape: of the input of one device, images or rows.
    """
    norm = {"BatchNorm": nn.BatchNorm, "UnitizedBatchNorm": UnitizedBatchNorm}[layer]
    network = _Network(norm, jnp.dtype(dtype))
    devices = np.array(tpu_devices(topology))
    mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
    whole = (shape[0] * devices.size, *shape[1:])
    x = jax.ShapeDtypeStruct(whole, dtype, sharding=NamedSharding(mesh, PartitionSpec("data")))
    variables = jax.eval_shape(
        network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape[1:]), dtype)
    )
    replicated = NamedSharding(mesh, PartitionSpec())
    variables = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=replicated), variables
    )

    def step(variables: Any, x: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            y, updated = network.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.square(y.astype(jnp.float32)).mean(), updated

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    start = time.perf_counter()
    compiled = jax.jit(step).lower(variables, x).compile()
    seconds = time.perf_counter() - start
    cost: Any = compiled.cost_analysis()
    memory: Any = compiled.memory_analysis()
    found = collectives(compiled.as_text() or "")
    return TpuRow(
        layer=layer,
        dtype=dtype,
        shape=shape,
        bytes_accessed=cost["bytes accessed"],
        flops=cost["flops"],
        collectives=dict(collections.Counter(c.kind for c in found if not c.guarded)),
        guarded_collectives=sum(c.guarded for c in found),
        peak_bytes=memory.peak_memory_in_bytes,
        compile_s=seconds,
    )
