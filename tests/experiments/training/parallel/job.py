"""A small training job that runs under every transform, and the numbers that must agree."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from experiments import models
from experiments.config import networks
from experiments.config.experiment import ModelConfig, OptimConfig, TrainConfig
from experiments.config.parallel import DevicesConfig
from experiments.data import ArrayDataset
from experiments.training.parallel import make_transform
from experiments.training.program import build_program, evaluate_test

BATCH, UPDATES, TESTED = 32, 3, 50  # 50 test images: the last batch of an evaluation is padded
TRANSFORMS = ("jit", "pmap", "shard_map")


class Tiny(nn.Module):
    """The least that a step can train: most of these tests' time is compilation."""

    num_classes: int
    norm: models.ModuleDef
    conv: models.ModuleDef
    dense: models.ModuleDef

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = self.conv(8, (3, 3), name="conv")(x)
        x = nn.relu(self.norm(use_running_average=not train, name="norm")(x))
        return self.dense(self.num_classes, name="head")(x.mean((1, 2)))

    def norm_paths(self) -> list[tuple[str, ...]]:
        return [("norm",)]


models.NETWORKS.setdefault("tiny", Tiny)
networks.TITLES.setdefault("tiny", "Tiny")
CONFIG = TrainConfig(
    model=ModelConfig(name="tiny"),
    evals_per_epoch=1,
    optim=OptimConfig(batch_size=BATCH, warmup=0.0, learning_rate=0.05),
)
_random = np.random.default_rng(0)
# Images of different devices differ in mean and spread, so that it shows who shares statistics.
_spread = np.linspace(0.5, 2, BATCH)[:, None, None, None]
IMAGES = np.float32(_random.normal(size=(UPDATES, BATCH, 8, 8, 1)) * _spread + _spread)
LABELS = _random.integers(0, 10, (UPDATES, BATCH)).astype(np.int32)
TEST_IMAGES = np.float32(_random.normal(size=(TESTED, 8, 8, 1)))
TEST_LABELS = _random.integers(0, 10, TESTED).astype(np.int32)


DATASET = ArrayDataset(
    name="random images",
    num_classes=10,
    background=-1.0,
    train_images=IMAGES.reshape(-1, 8, 8, 1),
    train_labels=LABELS.reshape(-1),
    test_images=TEST_IMAGES,
    test_labels=TEST_LABELS,
)
# With random shifts: most of the time to compile a step. (Flips are drawn in the same way.)
AUGMENTED = dataclasses.replace(DATASET, max_shift=2)


def configure(*, accumulate: int = 1, penalty: float = 5e-4, **devices: Any) -> TrainConfig:
    """The configuration of a case."""
    return dataclasses.replace(
        CONFIG,
        optim=dataclasses.replace(CONFIG.optim, accumulate=accumulate, weight_penalty=penalty),
        devices=DevicesConfig(**devices),
    )


def make_program(config: TrainConfig, norm: str, dataset: ArrayDataset = DATASET) -> Any:
    return build_program(config, norm, dataset)


@functools.cache
def initial_arrays(norm: str) -> list[np.ndarray]:
    """The arrays of the initial state on the host, as from a checkpoint."""
    config = configure(num_devices=1)
    local = make_transform(config.devices, jax.local_devices())
    program = build_program(config, norm, DATASET, local)
    state = program.init(jax.random.key(0), IMAGES[0])
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state.replace(key=()))]


def initial_state(program: Any, norm: str) -> Any:
    """The initial state for ``program``; it is the same for every transform."""
    template = jax.eval_shape(program.init, jax.random.key(0), IMAGES[0])
    structure = jax.tree.structure(template.replace(key=()))
    key = jax.random.split(jax.random.key(0))[1]  # as `steps.create_state` does
    return jax.tree.unflatten(structure, initial_arrays(norm)).replace(key=key)


def run(
    config: TrainConfig,
    norm: str,
    *,
    dataset: ArrayDataset = DATASET,
    init: bool = False,
    test: bool = False,
    part: slice = slice(None),
) -> dict[str, np.ndarray]:
    """Every number of a few updates and an evaluation, by name.

    Gradients are there as the momentum after the first update, which is the gradient.

    Args:
        config: The configuration.
        norm: Name of the norm.
        dataset: The images.
        init: Whether to begin with ``program.init``, not with the arrays of another one.
        test: Whether to evaluate at the end.
        part: Which images of a batch to give to the step: all, or those of this process.
    """
    program = make_program(config, norm, dataset)
    make = functools.partial(program.init, jax.random.key(0), IMAGES[0])
    state = make() if init else initial_state(program, norm)
    numbers: dict[str, Any] = {}
    for i, (images, labels) in enumerate(zip(IMAGES, LABELS, strict=True)):
        batch = {"image": images[part], "label": labels[part]}
        state, metrics = program.train_step(state, batch)
        numbers[f"metrics{i}"] = jax.device_get(metrics)
        if i == 0:
            numbers["gradients"] = jax.device_get(state.opt_state)
    numbers["params"] = jax.device_get(state.params)
    numbers["batch_stats"] = jax.device_get(state.batch_stats)
    if test:
        numbers["evaluation"] = evaluate_test(program, state, dataset)
    return flatten(numbers)


@functools.cache
def one_device(norm: str, accumulate: int = 1, precision: str = "float32") -> dict[str, np.ndarray]:
    """The numbers that every transform must reproduce."""
    return run(configure(num_devices=1, accumulate=accumulate, precision=precision), norm)


def flatten(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
