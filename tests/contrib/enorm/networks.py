"""Networks to balance, one of each kind that groups describe, and what is done with them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unitnorm_jax.contrib.enorm import (
    EnormGroup,
    enorm_chain,
    enorm_energy,
    enorm_factors,
    enorm_rescale,
)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for width in (7, 6, 5):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(3)(x)


class ConvNet(nn.Module):
    """Pooling, batch normalization with and without bias, an image flattened before Dense."""

    epsilon: float = 1e-12

    @nn.compact
    def __call__(self, x, train=False):
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, epsilon=self.epsilon, momentum=0.5
        )
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(norm(name="norm")(nn.Conv(6, (3, 3), use_bias=False)(x)))
        x = nn.leaky_relu(norm(name="bare", use_bias=False)(nn.Conv(5, (1, 1))(x)))
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(8)(x))
        return nn.Dense(3)(x)


class Residual(nn.Module):
    """Two streams: the first read by a projection too, the second by a layer that feeds itself."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(6, name="stem")(x)
        y = nn.relu(nn.Dense(5, name="a0")(nn.relu(x)))
        x = x + nn.Dense(6, name="a1")(y)
        y = nn.relu(nn.Dense(7, name="b0")(nn.relu(x)))
        x = nn.Dense(4, name="b1")(y) + nn.Dense(4, use_bias=False, name="projection")(x)
        x = x + nn.Dense(4, name="loop")(nn.relu(x))
        return nn.Dense(2, name="head")(nn.relu(x))


class Net(NamedTuple):
    model: nn.Module
    shape: tuple[int, ...]
    groups: tuple[EnormGroup, ...]
    depths: dict[str, int] | None = None


DENSE = tuple(f"Dense_{i}" for i in range(4))
NETS = {
    "mlp": Net(MLP(), (5, 4), enorm_chain(DENSE)),
    "conv": Net(
        ConvNet(),
        (5, 8, 8, 2),
        (
            EnormGroup(("Conv_0",), ("Conv_1",)),
            EnormGroup(("Conv_1",), ("Conv_2",), norms=("norm",)),
            EnormGroup(("Conv_2",), (), norms=("bare",), flattened=("Dense_0",)),
            EnormGroup(("Dense_0",), ("Dense_1",)),
        ),
    ),
    "residual": Net(
        Residual(),
        (5, 3),
        (
            EnormGroup(("stem", "a1"), ("a0", "b0", "projection")),
            EnormGroup(("a0",), ("a1",)),
            EnormGroup(("b0",), ("b1",)),
            EnormGroup(("b1", "projection", "loop"), ("loop", "head")),
        ),
        {"stem": 0, "a0": 1, "a1": 2, "b0": 3, "projection": 3, "b1": 4, "loop": 5, "head": 6},
    ),
}


@functools.cache
def variables(name: str, seed: int = 0) -> Any:
    """Every parameter and statistic off its initial value."""
    shapes = jax.eval_shape(NETS[name].model.init, jax.random.key(seed), inputs(name))
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        if path[-1].key == "kernel":
            value = rng.normal(size=leaf.shape) / np.sqrt(leaf.size / leaf.shape[-1])
        else:
            value = rng.uniform(0.1, 0.5, leaf.shape)
        return np.float32(value * rng.uniform(0.2, 3, leaf.shape))

    return jax.tree_util.tree_map_with_path(draw, shapes)


def inputs(name: str) -> jax.Array:
    return jnp.asarray(np.random.default_rng(9).normal(size=NETS[name].shape), jnp.float32)


@functools.cache
def cycle(name: str, **options: Any) -> Callable[..., Any]:
    """Cycles, jitted: variables and their number in, variables and energy out."""
    net = NETS[name]

    def one(_: int, variables: Any) -> Any:
        factors = enorm_factors(
            variables["params"],
            net.groups,
            batch_stats=variables.get("batch_stats"),
            depths=net.depths,
            **options,
        )
        return {kind: enorm_rescale(variables[kind], getattr(factors, kind)) for kind in variables}

    @jax.jit
    def run(variables: Any, times: int) -> tuple[Any, jax.Array]:
        variables = jax.lax.fori_loop(0, times, one, variables)
        energy = enorm_energy(variables["params"], net.groups, depths=net.depths, **options)
        return variables, energy

    return run


@functools.cache
def balancing(name: str) -> Callable[[Any], Any]:
    """The factors of one cycle, jitted."""
    return jax.jit(
        lambda variables: enorm_factors(
            variables["params"], NETS[name].groups, batch_stats=variables.get("batch_stats")
        )
    )


@functools.cache
def outputs(name: str, train: bool) -> Callable[[Any], jax.Array]:
    model, x = NETS[name].model, inputs(name)

    def run(variables: Any) -> jax.Array:
        y = model.apply(variables, x, train=train, mutable=["batch_stats"] if train else False)
        return y[0] if train else y

    return jax.jit(run)


def double(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(float), tree)
