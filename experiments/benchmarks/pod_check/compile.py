"""Compiles the training step of ``train`` for devices that need not be there."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax

from experiments.benchmarks.networks import Recipe
from experiments.benchmarks.pod_check.collectives import Collective, collectives
from experiments.training.parallel import make_transform
from experiments.training.program import build_program


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of one training step; every number is of one device.

    Attributes:
        norm: Name of the norm.
        devices: Number of devices.
        batch_size: Images of an update, over all devices.
        parameters: Number of parameters of the network.
        flops: Floating-point operations.
        bytes_accessed: Bytes read and written by the instructions.
        allocated_bytes: Memory that the program reserves: arguments and results (a state that is
            updated in place counts once), temporaries and the program itself.
        peak_bytes: Most of it in use at a time.
        collectives: The collectives.
        compile_s: Seconds to compile.
    """

    norm: str
    devices: int
    batch_size: int
    parameters: int
    flops: float
    bytes_accessed: float
    allocated_bytes: int
    peak_bytes: int
    collectives: tuple[Collective, ...]
    compile_s: float


def compile_step(
    recipe: Recipe, norm: str, devices: Sequence[Any], effort: float = 0.0
) -> Compiled:
    """Compile the training step of ``recipe`` with ``norm`` for ``devices``.

    Args:
        recipe: The configuration and the shape of the data.
        norm: Name of the norm.
        devices: The devices, for example those of ``topology.tpu_devices``.
        effort: How hard the compiler is to work on the program's speed, -1 to 1.

    Raises:
        ValueError: If the configuration does not fit the devices, or the compiler knows no effort.
    """
    config = recipe.config
    transform = make_transform(config.devices, devices)
    if transform.mode == "pmap":
        raise ValueError(
            "`parallel` (='pmap') cannot be compiled for devices that are not there; choose jit "
            "or shard_map."
        )
    program = build_program(config, norm, recipe.dataset, transform)
    size = config.optim.batch_size
    one = recipe.dataset.example(1)
    state = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=transform.replicated),
        jax.eval_shape(program.init, jax.random.key(0), one["image"]),
    )
    batch = {
        name: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype, sharding=transform.split)
        for name, a in one.items()
    }
    lowered = program.train_step.function.lower(state, batch)
    start = time.perf_counter()
    try:
        compiled = lowered.compile({"exec_time_optimization_effort": effort} if effort else None)
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        raise ValueError(
            f"`scaling_effort` (={effort}) must be 0 with jax {jax.__version__}: its compiler has "
            "no such option (that of jax 0.10 has)."
        ) from None
    seconds = time.perf_counter() - start
    cost: Any = compiled.cost_analysis()
    memory: Any = compiled.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(
        norm=norm,
        devices=transform.devices,
        batch_size=size,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        allocated_bytes=memory.argument_size_in_bytes
        + results
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        collectives=tuple(collectives(compiled.as_text() or "")),
        compile_s=seconds,
    )
