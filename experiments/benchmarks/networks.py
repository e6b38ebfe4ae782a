"""Recipes of networks with a description of their data, so that a program needs no images.

``bench step`` times them and ``pod_check`` compiles them; what to train is in ``configs``.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

from experiments.config.experiment import (
    DataConfig,
    ModelConfig,
    Network,
    OptimConfig,
    TrainConfig,
)
from experiments.configs import recipes
from experiments.data import Batch, Dataset, Pipeline
from experiments.data.scaling import IMAGENET


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DescribedDataset(Dataset):
    """A data set of uint8 images of which no more is known than a program needs.

    Attributes:
        image_shape: Height, width, channels.
        images: Number of training images.
    """

    image_shape: tuple[int, int, int]
    images: int

    @property
    def train_size(self) -> int:
        """Number of training images."""
        return self.images

    @property
    def test_size(self) -> int:
        """There are none."""
        return 0

    def example(self, batch_size: int) -> Batch:
        """See ``Dataset``."""
        shape = (batch_size, *self.image_shape)
        return {"image": np.zeros(shape, np.uint8), "label": np.zeros(batch_size, np.int32)}

    def pipeline(self, *args: Any, **kwargs: Any) -> Pipeline:
        """There are no images."""
        self._fail()

    def test_batches(self, *args: Any, **kwargs: Any) -> Iterator[Batch]:
        """There are no images."""
        self._fail()

    def _fail(self) -> NoReturn:
        raise ValueError(f"{self.name} has no images here; train with python -m experiments train.")


class Recipe(NamedTuple):
    """A configuration, and what it needs to know of its data.

    Attributes:
        config: The configuration; its learning rate suits its batch size.
        dataset: The data set.
    """

    config: TrainConfig
    dataset: Dataset


def on_imagenet(model: Network, batch_size: int) -> Recipe:
    """ResNet on ImageNet, see ``configs.recipes.imagenet``."""
    dataset = DescribedDataset(
        name="ImageNet 2012",
        num_classes=1000,
        scaling=IMAGENET,
        image_shape=(224, 224, 3),
        images=recipes.IMAGENET_IMAGES,
    )
    return Recipe(recipes.imagenet(model, batch_size), dataset)


def on_cifar(blocks: tuple[int, ...], batch_size: int) -> Recipe:
    """Pre-activation ResNet on CIFAR-10, as ``pod_check`` compiles it: not to train by.

    The network, images and batch are those of the paper's; the schedule, norm and penalty are the
    defaults of ``train``, which change next to nothing of the program. What to train is
    ``experiments.configs``, made by ``configs.recipes.authors``.

    Args:
        blocks: Blocks of each of the three stages.
        batch_size: Images per update.
    """
    config = TrainConfig(
        evals_per_epoch=1,
        data=DataConfig(dataset="cifar10"),
        model=ModelConfig(blocks=blocks, widths=(16, 32, 64)),
        optim=OptimConfig(epochs=200, batch_size=batch_size),
    )
    dataset = DescribedDataset(
        name="CIFAR-10",
        num_classes=10,
        scaling=IMAGENET,  # Any constants: they do not change the program.
        flip=True,
        max_shift=4,
        image_shape=(32, 32, 3),
        images=50_000,
    )
    return Recipe(config, dataset)


RECIPES: dict[str, Callable[[int], Recipe]] = {
    "resnet50": lambda batch_size: on_imagenet("resnet50", batch_size),
    "resnet101": lambda batch_size: on_imagenet("resnet101", batch_size),
    "resnet18": lambda batch_size: on_cifar((3, 3, 3), batch_size),
    "resnet110": lambda batch_size: on_cifar((18, 18, 18), batch_size),
}


def make_recipe(model: str, batch_size: int) -> Recipe:
    """Return the recipe of ``model``, a key of ``RECIPES``.

    Args:
        model: Name of the network.
        batch_size: Images per update.

    Raises:
        ValueError: If ``model`` is unknown.

    Example:
        >>> make_recipe("resnet50", 4096).config.optim.learning_rate
        1.6
    """
    if model not in RECIPES:
        raise ValueError(f"model (={model!r}) is unknown; choose from {', '.join(RECIPES)}.")
    return RECIPES[model](batch_size)


def with_changes(recipe: Recipe, *, accumulate: int = 1, **devices: Any) -> Recipe:
    """Return ``recipe`` with micro-batches, and other options of ``DevicesConfig``."""
    config = recipe.config
    changed = dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, accumulate=accumulate),
        devices=dataclasses.replace(config.devices, **devices),
    )
    return recipe._replace(config=changed)
