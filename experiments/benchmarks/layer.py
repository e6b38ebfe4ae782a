"""The layer against ``nn.BatchNorm``: time, memory traffic and memory kept, on this device."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import forms, program
from experiments.common import timing
from unitnorm_jax.linen import UnitizedBatchNorm

SHAPES = (
    (128, 32, 32, 16),
    (128, 16, 16, 32),
    (128, 8, 8, 64),
    (32, 56, 56, 64),
    (8, 112, 112, 64),
    (1024, 512),
)


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One line of the table: ratios of time to ``nn.BatchNorm``, median and quartiles of pairs."""

    shape: tuple[int, ...]
    dtype: str
    passes: str
    base_ms: float
    rounds: int
    ratios: dict[str, tuple[float, float, float]]
    traffic: dict[str, tuple[int, int]]


def _caller(
    form: forms.Form, passes: str, variables: Any, x: jax.Array, dy: jax.Array
) -> tuple[Callable[[], Any], str]:
    """Return a compiled call that reuses the buffers of its last results, and its program."""
    wrapped = forms.PASSES[passes](form)

    def run(variables: Any, x: jax.Array, dy: jax.Array, buffers: Any) -> Any:
        del buffers
        return wrapped(variables, x, dy)

    buffers, _ = jax.tree.map(
        lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(wrapped, variables, x, dy)
    )
    compiled = (
        jax.jit(run, donate_argnums=3, keep_unused=True).lower(variables, x, dy, buffers).compile()
    )

    def call() -> Any:
        nonlocal buffers
        buffers, rest = compiled(variables, x, dy, buffers)
        return buffers, rest

    return call, compiled.as_text() or ""


def measure(shape: tuple[int, ...], dtype: str, passes: str, seconds: float) -> LayerRow:
    """Time every form on one shape, and read its program."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = (1 + jax.random.normal(keys[0], shape)).astype(dtype)
    dy = jax.random.normal(keys[1], shape).astype(dtype)
    variables = forms.variables_for(shape[-1], keys[2])
    calls, moved = {}, {}
    for name, form in forms.FORMS.items():
        calls[name], text = _caller(form, passes, variables, x, dy)
        moved[name] = program.traffic(text, x.size)
    times = timing.interleaved(calls, seconds)
    return LayerRow(
        shape=shape,
        dtype=dtype,
        passes=passes,
        base_ms=float(np.median(times["BatchNorm"]) * 1e3),
        rounds=len(times["BatchNorm"]),
        ratios={name: timing.ratio(times, name, "BatchNorm") for name in calls},
        traffic=moved,
    )


def copy_rate(seconds: float) -> float:
    """Bytes read and written per second by a copy of 268 MB on this device."""
    x = jnp.ones(1 << 26, jnp.float32)
    copy = jax.jit(jnp.copy)
    times = timing.interleaved({"copy": lambda: copy(x)}, seconds)["copy"]
    return 2 * x.nbytes / float(np.median(times))


def kept_memory(dtype: str, layers: int = 4) -> dict[str, float]:
    """Return the memory reverse mode keeps for conv-norm-ReLU, in units of its input."""

    class Stack(nn.Module):
        norm: Callable[..., nn.Module]

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for _ in range(layers):
                x = nn.Conv(16, (3, 3), use_bias=False, dtype=dtype)(x)
                x = self.norm(use_running_average=False, dtype=dtype)(x)
                x = nn.relu(x)
            return x

    x = jnp.zeros((8, 16, 16, 16), dtype)
    result = {}
    for norm in (nn.BatchNorm, UnitizedBatchNorm):
        stack = Stack(norm)
        variables = stack.init(jax.random.key(0), x)

        def loss(params: Any, x: jax.Array, stack: Stack = stack, rest: Any = variables) -> Any:
            y, _ = stack.apply({**rest, "params": params}, x, mutable=["batch_stats"])
            # One more use of the last output, as by the next convolution.
            return jnp.square(y.astype(jnp.float32)).sum()

        size = program.kept(loss, variables["params"], x, size=x.size)
        result[norm.__name__] = size / (layers * x.nbytes)
    return result
