"""What ``bench gpu`` compiles: layers, small networks and whole training steps."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import forms
from experiments.benchmarks.networks import make_recipe, with_changes
from experiments.config.parallel import DevicesConfig
from experiments.training.parallel import Transform, make_transform
from experiments.training.program import build_program
from unitnorm_jax.linen import UnitizedBatchNorm

NORMS = ("BatchNorm", "UnitizedBatchNorm", "none")
BASE = "BatchNorm"
_METHODS = {"BatchNorm": "bn", "UnitizedBatchNorm": "ubn", "none": "none"}


class Case(NamedTuple):
    """A program with one of ``NORMS``.

    Attributes:
        kind: "layer", "chain" (convolution-norm-ReLU, twice), "dense" (Dense-norm-ReLU, twice), or
            a training step: "resnet50", "resnet110".
        shape: Of the input, on one device.
        dtype: Of the activations; parameters are float32.
        devices: Number of GPUs.
        norm: The normalization.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    devices: int
    norm: str

    @property
    def group(self) -> str:
        """Which cases are summarized together."""
        if self.kind == "chain":
            return "chain" if self.shape in _CHAINS else "chain, other shapes"
        if self.kind == "layer":
            return f"layer {'x'.join(map(str, self.shape))}, {self.dtype}"
        return self.kind


_CHAINS = ((32, 56, 56, 64), (128, 32, 32, 16), (32, 28, 28, 128))
_OTHERS = (
    ((32, 112, 112, 64), "bfloat16"),
    ((32, 56, 56, 256), "bfloat16"),
    ((32, 28, 28, 512), "bfloat16"),
    ((32, 14, 14, 1024), "bfloat16"),
    ((32, 7, 7, 2048), "bfloat16"),
    ((32, 14, 14, 256), "float32"),
    ((128, 16, 16, 32), "float32"),
    ((128, 8, 8, 64), "float32"),
)
_DTYPES = ("float32", "bfloat16")
GROUPS: dict[str, tuple[tuple[str, tuple[int, ...], str], ...]] = {
    "layer": tuple(("layer", s, d) for s in (*_CHAINS[:2], (1024, 512)) for d in _DTYPES),
    "chain": tuple(("chain", shape, dtype) for shape in _CHAINS for dtype in _DTYPES),
    "others": tuple(("chain", shape, dtype) for shape, dtype in _OTHERS),
    "dense": tuple(("dense", s, d) for s in ((1024, 512), (4096, 1024)) for d in _DTYPES),
    "resnet50": (("resnet50", (32, 224, 224, 3), "bfloat16"),),
    "resnet110": (("resnet110", (128, 32, 32, 3), "float32"),),
}
STEPS = ("resnet50", "resnet110")


class Network(nn.Module):
    """Convolution or Dense, normalization, ReLU, twice."""

    norm: str
    shape: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the last activations."""
        layers = {"BatchNorm": nn.BatchNorm, "UnitizedBatchNorm": UnitizedBatchNorm}
        channels = self.shape[-1]
        for _ in range(2):
            if len(self.shape) == 2:
                x = nn.Dense(channels, use_bias=False, dtype=self.dtype)(x)
            else:
                x = nn.Conv(channels, (3, 3), use_bias=False, dtype=self.dtype)(x)
            if self.norm != "none":
                x = layers[self.norm](use_running_average=False, dtype=self.dtype)(x)
            x = nn.relu(x)
        return x


class Built(NamedTuple):
    """A program, and its arguments when they are asked for.

    Attributes:
        function: Jitted, ``function(same, split)``.
        arguments: Makes both: what every device has, and what they share out by its first axis.
        size: Number of elements of the largest activations on one device.
    """

    function: Any
    arguments: Callable[[], tuple[Any, Any]]
    size: int


def lower(case: Case, devices: Sequence[jax.Device]) -> tuple[jax.stages.Lowered, Built]:
    """Lower a case for devices that need not be there; under jit all see the global batch."""
    transform = make_transform(DevicesConfig(), devices)
    built = build(case, transform)
    same, split = jax.eval_shape(built.arguments)
    placed = _place(same, transform.replicated), _place(split, transform.split)
    return built.function.lower(*placed), built


def _place(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), tree)


def build(case: Case, transform: Transform) -> Built:
    """Return the program of a case."""
    if case.kind in STEPS:
        return _step(case, transform)
    shape = (case.shape[0] * case.devices, *case.shape[1:])
    make = _layer if case.kind == "layer" else _network
    return make(case, shape)


def _layer(case: Case, shape: tuple[int, ...]) -> Built:
    name = "a x + b" if case.norm == "none" else case.norm
    run = forms.PASSES["forward+backward"](forms.FORMS[name])

    def arguments() -> tuple[Any, Any]:
        keys = jax.random.split(jax.random.key(0), 3)
        x, dy = (jax.random.normal(key, shape, case.dtype) for key in keys[:2])
        return forms.variables_for(shape[-1], keys[2]), (1 + x, dy)

    function = jax.jit(lambda variables, split: run(variables, *split))
    return Built(function, arguments, math.prod(case.shape))


def _network(case: Case, shape: tuple[int, ...]) -> Built:
    network = Network(case.norm, shape, jnp.dtype(case.dtype))

    def arguments() -> tuple[Any, Any]:
        x = jax.random.normal(jax.random.key(0), shape, case.dtype)
        return network.init(jax.random.key(1), x[:1]), x

    def step(variables: Any, x: jax.Array) -> Any:
        def loss(params: Any) -> Any:
            y, updated = network.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.square(y.astype(jnp.float32)).mean(), updated

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    return Built(jax.jit(step), arguments, math.prod(case.shape))


def _step(case: Case, transform: Transform) -> Built:
    size = case.shape[0] * case.devices
    recipe = with_changes(make_recipe(case.kind, size), precision=case.dtype)
    program = build_program(recipe.config, _METHODS[case.norm], recipe.dataset, transform)
    example = recipe.dataset.example(size)
    noise = np.random.default_rng(0).integers(0, 256, example["image"].shape, np.uint8)

    def arguments() -> tuple[Any, Any]:
        batch = {"image": jnp.asarray(noise), "label": jnp.asarray(example["label"])}
        return program.init(jax.random.key(0), batch["image"][:1]), batch

    return Built(program.train_step.function, arguments, 0)
